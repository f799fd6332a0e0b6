//! The embedded demo provider: an upstream inside the process, so that the proxy can be tried without an
//! account.
//!
//! Enters: HTTP requests of the data path, over a loopback socket, in any of the four formats. Leaves:
//! deterministic answers and faults, by model name ([`script`]). It is the proxy's configuration only when
//! there is none, or when a configuration file asks for it. May go wrong: what its models are for.

pub mod script;
mod speak;

use async_trait::async_trait;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

/// The provider's listener, bound before anything that needs its address is built.
#[derive(Debug)]
pub struct Demo {
    listener: TcpListener,
}

impl Demo {
    /// Takes a free port of the loopback interface.
    pub fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// A configuration that serves it in all four formats under `key`.
    pub fn config(&self, key: &str) -> io::Result<String> {
        let base = format!("http://{}", self.address()?);
        let models: Vec<_> = script::MODELS.iter().map(|m| format!("{{name: {m}, alias: {m}}}")).collect();
        let models = format!("      [{}]\n", models.join(", "));
        Ok(format!(
            "host: 127.0.0.1\n\
             port: 8317\n\
             api-keys: [{key}]\n\
             openai-compatibility:\n\
             \x20 - name: demo\n    base-url: {base}/v1\n    prefix: chat\n    priority: 1\n\
             \x20   api-key-entries: [{{api-key: demo-chat}}]\n    models:\n{models}\
             codex-api-key:\n\
             \x20 - api-key: demo-responses\n    base-url: {base}/v1\n    prefix: responses\n    models:\n{models}\
             claude-api-key:\n\
             \x20 - api-key: demo-claude\n    base-url: {base}\n    prefix: claude\n    models:\n{models}\
             gemini-api-key:\n\
             \x20 - api-key: demo-gemini\n    base-url: {base}\n    prefix: gemini\n    models:\n{models}"
        ))
    }
}

#[async_trait]
impl BackgroundService for Demo {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let listener = self.listener.try_clone().and_then(tokio::net::TcpListener::from_std);
        let Ok(listener) = listener else {
            tracing::error!("the demo provider cannot listen");
            return;
        };
        let app = Arc::new(Speaker);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = shutdown.changed() => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            // Events are small writes: they must not wait for acknowledgements.
            let _ = stream.set_nodelay(true);
            let (app, shutdown) = (Arc::clone(&app), shutdown.clone());
            tokio::spawn(async move {
                let stream: pingora::protocols::l4::stream::Stream = stream.into();
                let mut next: Option<Stream> = Some(Box::new(stream));
                while let Some(stream) = next {
                    next = app.process_new(stream, &shutdown).await;
                }
            });
        }
    }
}

/// Answers requests.
#[derive(Debug)]
struct Speaker;

#[async_trait]
impl HttpServerApp for Speaker {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        session.set_keepalive((!*shutdown.borrow()).then_some(60));
        // A cut is an answer that drops the connection.
        speak::answer(&mut session).await.ok().filter(|kept| *kept)?;
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}
