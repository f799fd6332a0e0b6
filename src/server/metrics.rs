//! `GET /metrics`.
//!
//! Enters: any request. Leaves: Prometheus' text format. May go wrong: nothing.

use crate::state::State;
use async_trait::async_trait;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use std::sync::Arc;

/// The page.
pub(super) struct MetricsPage(pub Arc<State>);

#[async_trait]
impl ServeHttp for MetricsPage {
    async fn response(&self, _: &mut ServerSession) -> http::Response<Vec<u8>> {
        let body = self.0.metrics.render();
        let length = body.len();
        let mut response = http::Response::new(body);
        let headers = response.headers_mut();
        headers.insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        );
        headers.insert(http::header::CONTENT_LENGTH, http::HeaderValue::from(length));
        response
    }
}
