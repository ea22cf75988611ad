//! Which path answers what.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};

/// What the process tells about itself. The calls come from the thread that serves HTTP, one at a
/// time; they may take milliseconds, and must not block for longer.
pub trait Status {
    /// Every series, in Prometheus' text format 0.0.4.
    fn metrics(&self) -> String;

    /// Whether a primary is known in every cluster.
    ///
    /// # Errors
    ///
    /// Why not, in one line for operators, without secrets.
    fn ready(&self) -> Result<(), String>;

    /// Whether reads have a node in every cluster.
    ///
    /// # Errors
    ///
    /// Why not, in one line for operators, without secrets.
    fn ready_for_reads(&self) -> Result<(), String>;

    /// Whether the process finishes its sessions and accepts no new ones. It is not ready then,
    /// so that load balancers stop sending clients; it is still alive.
    fn draining(&self) -> bool;
}

/// The answer to one request.
pub(super) fn answer(method: &Method, path: &str, status: &dyn Status) -> Response<Full<Bytes>> {
    let body: fn(&dyn Status) -> Response<Full<Bytes>> = match path {
        "/" => |_| text(StatusCode::OK, ROUTES.to_owned()),
        "/metrics" => |status| typed(StatusCode::OK, METRICS_TYPE, status.metrics()),
        "/livez" => |_| text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => |status| readiness(status, status.ready()),
        "/readyz/read" => |status| readiness(status, status.ready_for_reads()),
        _ => return text(StatusCode::NOT_FOUND, format!("not found\n\n{ROUTES}")),
    };
    // hyper keeps the body of an answer to HEAD back, and its length.
    if !matches!(*method, Method::GET | Method::HEAD) {
        return not_allowed();
    }
    body(status)
}

fn readiness(status: &dyn Status, ready: Result<(), String>) -> Response<Full<Bytes>> {
    if status.draining() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    match ready {
        Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn not_allowed() -> Response<Full<Bytes>> {
    let mut response = text(
        StatusCode::METHOD_NOT_ALLOWED,
        "only GET and HEAD\n".to_owned(),
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn text(code: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(code, TEXT_TYPE, body)
}

fn typed(code: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Every answer is about this moment; a cache between would tell of another.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// Prometheus, "Exposition formats", the content type of the text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const ROUTES: &str = "\
pgweir

/metrics       series for Prometheus
/livez         200 while the process runs
/readyz        200 if writes have somewhere to go, else 503 and why not
/readyz/read   200 if reads have somewhere to go, else 503 and why not
";
