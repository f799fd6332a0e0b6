//! The terminal while `top` has it.
//!
//! Enters: frames. Leaves: what the keys mean. May go wrong: the terminal cannot be switched, or is gone. It is
//! put back when the [`Screen`] is dropped, also by a panic.

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read};
use crossterm::style::Print;
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue};
use std::io::{self, Stdout, Write, stdout};
use std::time::Duration;
use tokio::sync::mpsc;

/// Time between two looks at whether the reader of keys is still wanted.
const LOOK: Duration = Duration::from_millis(200);

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    /// End.
    Quit,
    /// The terminal has another size.
    Resized,
}

/// A terminal that shows frames.
#[derive(Debug)]
pub(super) struct Screen {
    out: Stdout,
}

impl Screen {
    /// Takes the terminal, and reads its keys on a thread of its own.
    pub(super) fn open() -> io::Result<(Self, mpsc::Receiver<Pressed>)> {
        enable_raw_mode()?;
        // From here on a drop puts it back.
        let screen = Self { out: stdout() };
        execute!(screen.out.lock(), EnterAlternateScreen, Hide)?;
        let (sender, receiver) = mpsc::channel(8);
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || keys(&sender))?;
        Ok((screen, receiver))
    }

    /// Shows what `frame` makes for so many rows and columns.
    pub(super) fn draw(&mut self, frame: impl FnOnce((u16, u16)) -> String) -> io::Result<()> {
        let (columns, rows) = size()?;
        let text = frame((columns, rows));
        let mut out = self.out.lock();
        queue!(out, BeginSynchronizedUpdate, MoveTo(0, 0))?;
        for line in text.lines().take(rows.into()).enumerate() {
            let (at, line) = line;
            queue!(out, MoveTo(0, u16::try_from(at).unwrap_or(rows)))?;
            queue!(out, Print(cut(line, columns.into())), Clear(ClearType::UntilNewLine))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown), EndSynchronizedUpdate)?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = execute!(self.out.lock(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// The first characters of a line, colours not counted.
fn cut(line: &str, columns: usize) -> String {
    let mut out = String::new();
    let (mut wide, mut in_code, mut coloured) = (0, false, false);
    for c in line.chars() {
        if c == '\x1b' {
            (in_code, coloured) = (true, true);
        } else if !in_code {
            if wide == columns {
                break;
            }
            wide += 1;
        }
        out.push(c);
        in_code = in_code && c != 'm';
    }
    if coloured {
        out.push_str("\x1b[0m");
    }
    out
}

/// Reads keys until nobody wants them.
fn keys(sender: &mpsc::Sender<Pressed>) {
    while !sender.is_closed() {
        match poll(LOOK) {
            Ok(false) => {}
            Ok(true) => match read() {
                Ok(event) => {
                    if let Some(pressed) = meaning(&event)
                        && sender.blocking_send(pressed).is_err()
                    {
                        return;
                    }
                }
                // The terminal is gone, and with it the reason to go on.
                Err(_) => return,
            },
            Err(_) => return,
        }
    }
}

fn meaning(event: &Event) -> Option<Pressed> {
    match event {
        Event::Resize(..) => Some(Pressed::Resized),
        Event::Key(KeyEvent { kind: KeyEventKind::Release, .. }) => None,
        Event::Key(KeyEvent { code: KeyCode::Char('q' | 'Q') | KeyCode::Esc, .. }) => Some(Pressed::Quit),
        Event::Key(KeyEvent { code: KeyCode::Char('c' | 'd'), modifiers, .. })
            if modifiers.contains(KeyModifiers::CONTROL) =>
        {
            Some(Pressed::Quit)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_escape_and_control_c_end_it() {
        let key = |code, modifiers| meaning(&Event::Key(KeyEvent::new(code, modifiers)));
        for (code, modifiers) in [
            (KeyCode::Char('q'), KeyModifiers::NONE),
            (KeyCode::Esc, KeyModifiers::NONE),
            (KeyCode::Char('c'), KeyModifiers::CONTROL),
        ] {
            assert_eq!(key(code, modifiers), Some(Pressed::Quit), "{code:?}");
        }
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(meaning(&Event::Resize(1, 1)), Some(Pressed::Resized));
    }

    #[test]
    fn lines_are_cut_by_what_is_seen_of_them() {
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("\x1b[31mabcdef\x1b[0m", 3), "\x1b[31mabc\x1b[0m");
        assert_eq!(cut("\x1b[31mab\x1b[0m", 3), "\x1b[31mab\x1b[0m\x1b[0m");
    }
}
