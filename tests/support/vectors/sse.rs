//! The line-oriented reader of client streams.
//!
//! Deliberately not the decoder under test: one `data:` line is one event, and a bare line of JSON is taken as
//! data, so that chunks without framing can be checked too.

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The `event:` field, where there was one.
    pub name: Option<String>,
    /// The data line.
    pub data: String,
}

/// Splits a stream into events.
pub(super) fn events(stream: &str) -> Vec<Event> {
    let mut reader = Reader::default();
    for line in stream.split('\n') {
        reader.line(line.trim_end_matches(['\r', '\n']));
    }
    reader.flush();
    reader.events
}

#[derive(Default)]
struct Reader {
    events: Vec<Event>,
    name: Option<String>,
    data: Option<String>,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if line.is_empty() {
            self.flush();
        } else if line.starts_with(':') {
        } else if let Some(name) = line.strip_prefix("event:") {
            if self.data.is_some() {
                self.flush();
            }
            self.name = Some(name.trim().to_owned());
        } else if let Some(data) = line.strip_prefix("data:") {
            if self.data.is_some() {
                self.flush();
            }
            self.data = Some(data.trim_start_matches(' ').to_owned());
        } else if line.trim_start().starts_with(['{', '[']) {
            if self.data.is_some() {
                self.flush();
            }
            self.data = Some(line.trim().to_owned());
            self.flush();
        }
    }

    fn flush(&mut self) {
        let name = self.name.take();
        if let Some(data) = self.data.take() {
            self.events.push(Event { name, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_data_comments_and_bare_lines() {
        let stream = "event: a\r\ndata: {}\r\n\r\n: ping\nid: 7\ndata:1\ndata: 2\n\nevent: lost\n\n {\"x\":1}\nevent:b\ndata:  [DONE]";
        let seen: Vec<_> = events(stream).into_iter().map(|e| (e.name.unwrap_or_default(), e.data)).collect();
        let want = [("a", "{}"), ("", "1"), ("", "2"), ("", "{\"x\":1}"), ("b", "[DONE]")];
        assert_eq!(seen, want.map(|(name, data)| (name.to_owned(), data.to_owned())));
    }
}
