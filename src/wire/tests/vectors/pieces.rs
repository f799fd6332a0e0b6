//! P36: any chunking of the upstream's bytes gives the same client's bytes.

/// Random chunkings that are tried for each stream, besides byte by byte.
const ROUNDS: usize = 8;

/// Where `stream`, fed in pieces, gives other bytes than `whole`. `length` is that of the upstream's stream;
/// `id` seeds the positions, so that a failure comes back.
pub(crate) fn differences(
    id: &str,
    length: usize,
    whole: &[u8],
    stream: impl Fn(&[usize]) -> Vec<u8>,
) -> Vec<String> {
    let mut random = Random::new(id);
    let mut chunkings: Vec<Vec<usize>> = (0..ROUNDS).map(|round| random.cuts(round + 1, length)).collect();
    chunkings.push((1..length).collect());
    chunkings.iter().filter_map(|cuts| difference(cuts, whole, &stream(cuts))).collect()
}

fn difference(cuts: &[usize], whole: &[u8], pieces: &[u8]) -> Option<String> {
    if whole == pieces {
        return None;
    }
    let at = whole.iter().zip(pieces).take_while(|(a, b)| a == b).count();
    let near = |bytes: &[u8]| {
        let part = bytes.get(at.saturating_sub(40)..(at + 40).min(bytes.len())).unwrap_or_default();
        String::from_utf8_lossy(part).into_owned()
    };
    let cuts = if cuts.len() > ROUNDS { "everywhere".to_owned() } else { format!("at {cuts:?}") };
    Some(format!("p36: cut {cuts}, byte {at} differs: {:?} became {:?}", near(whole), near(pieces)))
}

/// Numbers that look random and are the same in each run (xorshift64*).
struct Random(u64);

impl Random {
    fn new(id: &str) -> Self {
        let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from(number).unwrap_or_default() % limit.max(1)
    }

    /// Up to `count` rising positions inside of `length` bytes.
    fn cuts(&mut self, count: usize, length: usize) -> Vec<usize> {
        let mut cuts: Vec<usize> = (0..count).map(|_| self.below(length)).collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }
}

#[test]
fn a_stream_that_depends_on_its_chunks_is_found() {
    let careless = |cuts: &[usize]| if cuts.contains(&3) { b"abd".to_vec() } else { b"abc".to_vec() };
    let found = differences("id", 20, b"abc", careless);
    assert!(found.last().unwrap().contains("cut everywhere, byte 2 differs"), "{found:?}");
    assert!(differences("id", 20, b"abc", |_| b"abc".to_vec()).is_empty());
}
