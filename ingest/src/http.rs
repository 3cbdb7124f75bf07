//! Serves `/metrics` and `/healthz`. It only reads.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::metrics::Metrics;

/// What is served.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
}

/// Listens, and serves in the background until `shutdown`.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) async fn serve(listen: SocketAddr, served: Served, shutdown: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("http.listen = {listen}"))?;
    tracing::info!(address = %listener.local_addr()?, "serving /metrics and /healthz");
    let router = Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthz)).with_state(served);
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "http");
        }
    });
    Ok(())
}

async fn metrics(State(served): State<Served>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], served.metrics.text())
}

async fn healthz(State(served): State<Served>) -> impl IntoResponse {
    let reasons = served.health.reasons();
    let (code, status) =
        if reasons.is_empty() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "degraded") };
    let body = serde_json::json!({ "status": status, "reasons": reasons }).to_string();
    (code, [(header::CONTENT_TYPE, "application/json")], body)
}
