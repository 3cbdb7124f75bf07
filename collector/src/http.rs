//! `/metrics` and `/healthz`, on loopback unless the config says otherwise.
//!
//! It has no encryption and asks for no name; whoever opens it to a network puts a proxy in front.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::metrics::Metrics;

#[derive(Clone)]
struct Shown {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// Takes the address, so that a port in use stops the start.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("http.listen: cannot listen on {address}"))
}

/// Serves until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    stop: CancellationToken,
) -> Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(health_text))
        .with_state(Shown { metrics, health });
    // Connections that are kept open must not hold up the end.
    tokio::select! {
        served = axum::serve(listener, router) => served.context("serving /metrics and /healthz"),
        () = stop.cancelled() => Ok(()),
    }
}

async fn metrics_text(State(shown): State<Shown>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shown.metrics.text())
}

async fn health_text(State(shown): State<Shown>) -> impl IntoResponse {
    let problems = shown.health.problems();
    let (status, word) = match problems.as_slice() {
        [] => (StatusCode::OK, "ok"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
    };
    let lines = [word.to_owned()].into_iter().chain(problems).chain(shown.health.notes());
    (status, lines.map(|line| line + "\n").collect::<String>())
}
