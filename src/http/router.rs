//! Paths and methods to endpoints.

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, HeaderValue, LOCATION},
};

use super::{
    answer::{Body, detail, empty},
    app::App,
    batch, devices, docs, ops, stream, templates, v1,
};

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Analyze,
    AnalyzeBatch,
    AnalyzeStream,
    Templates,
    Health,
    Root,
    Live,
    Ready,
    Devices,
    Metrics,
    OpenApi,
    Swagger,
    SwaggerFile,
    Redoc,
    RedocFile,
}

/// A path and what answers there.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// The path; a last `:file` stands for one segment.
    pub pattern: &'static str,
    endpoint: Endpoint,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To a route.
    Route(&'static Route),
    /// To the route whose path differs by a slash at the end.
    Redirect(&'static Route),
    /// Nowhere.
    Unknown,
}

const ROUTES: &[Route] = &[
    Route { pattern: "/api/v1/analyze", endpoint: Endpoint::Analyze },
    Route { pattern: "/api/v1/analyze/batch", endpoint: Endpoint::AnalyzeBatch },
    Route { pattern: "/api/v1/analyze/stream", endpoint: Endpoint::AnalyzeStream },
    Route { pattern: "/api/v1/templates", endpoint: Endpoint::Templates },
    Route { pattern: "/api/v1/health", endpoint: Endpoint::Health },
    Route { pattern: "/api/v1/", endpoint: Endpoint::Root },
    Route { pattern: "/livez", endpoint: Endpoint::Live },
    Route { pattern: "/readyz", endpoint: Endpoint::Ready },
    Route { pattern: "/api/v1/devices", endpoint: Endpoint::Devices },
    Route { pattern: "/metrics", endpoint: Endpoint::Metrics },
    Route { pattern: "/openapi.json", endpoint: Endpoint::OpenApi },
    Route { pattern: "/docs", endpoint: Endpoint::Swagger },
    Route { pattern: "/docs/:file", endpoint: Endpoint::SwaggerFile },
    Route { pattern: "/redoc", endpoint: Endpoint::Redoc },
    Route { pattern: "/redoc/:file", endpoint: Endpoint::RedocFile },
];

impl Place {
    /// Finds the route of `path`.
    pub fn of(path: &str) -> Self {
        if let Some(route) = ROUTES.iter().find(|route| route.matches(path)) {
            return Self::Route(route);
        }
        let other = match path.strip_suffix('/') {
            Some(without) if without.ends_with('/') => return Self::Unknown,
            Some(without) => without.to_owned(),
            None => format!("{path}/"),
        };
        let mut whole = ROUTES.iter().filter(|route| !route.pattern.ends_with(":file"));
        whole.find(|route| route.pattern == other).map_or(Self::Unknown, Self::Redirect)
    }

    /// The route's pattern for metrics; never the path itself, which anyone may choose.
    pub fn pattern(self) -> &'static str {
        match self {
            Self::Route(route) | Self::Redirect(route) => route.pattern,
            Self::Unknown => "unknown",
        }
    }

    /// Whether logs are scored there.
    pub fn is_analysis(self) -> bool {
        matches!(self, Self::Route(route) if route.takes_post())
    }

    /// Whether operators alone need it: devices, metrics and documentation.
    pub fn is_for_operators(self) -> bool {
        use Endpoint::{Devices, Metrics, OpenApi, Redoc, RedocFile, Swagger, SwaggerFile};
        match self {
            Self::Route(route) | Self::Redirect(route) => {
                matches!(route.endpoint, Devices | Metrics | OpenApi | Swagger | SwaggerFile | Redoc | RedocFile)
            }
            Self::Unknown => false,
        }
    }
}

impl Route {
    fn matches(&self, path: &str) -> bool {
        match self.pattern.strip_suffix(":file") {
            None => self.pattern == path,
            Some(folder) => path.strip_prefix(folder).is_some_and(|file| !file.is_empty() && !file.contains('/')),
        }
    }

    fn takes_post(&self) -> bool {
        matches!(self.endpoint, Endpoint::Analyze | Endpoint::AnalyzeBatch | Endpoint::AnalyzeStream)
    }

    /// Whether it is for those who may send logs: what it does costs much, or shows of them.
    fn needs_key(&self) -> bool {
        self.takes_post() || self.endpoint == Endpoint::Templates
    }

    /// The methods that are allowed, as the `Allow` header lists them.
    fn methods(&self) -> &'static str {
        if self.takes_post() { "POST, OPTIONS" } else { "GET, HEAD, OPTIONS" }
    }
}

/// Answers one request.
pub async fn route(app: &App, place: Place, request: Request<Incoming>) -> Response<Body> {
    let route = match place {
        Place::Route(route) => route,
        Place::Redirect(route) => return redirect(route, request.uri().query()),
        Place::Unknown => return detail(StatusCode::NOT_FOUND, "Not Found"),
    };
    if let Some(answer) = app.cors.preflight(&request, route.methods()) {
        return answer;
    }
    match *request.method() {
        Method::OPTIONS => return allow(empty(StatusCode::NO_CONTENT), route),
        Method::POST if route.takes_post() => {}
        Method::GET | Method::HEAD if !route.takes_post() => {}
        _ => return allow(detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"), route),
    }
    let Some(keys) = app.keys.as_ref().filter(|_| route.needs_key()) else {
        return endpoint(app, route, request).await;
    };
    match keys.check(request.headers()) {
        Err(refusal) => {
            app.handle.metrics().turned_away(refusal.reason);
            refusal.answer
        }
        Ok(pass) => {
            let mut answer = endpoint(app, route, request).await;
            // It is held until the answer is sent.
            answer.extensions_mut().insert(pass);
            answer
        }
    }
}

async fn endpoint(app: &App, route: &Route, request: Request<Incoming>) -> Response<Body> {
    match route.endpoint {
        Endpoint::Analyze => v1::analyze(app, request).await,
        Endpoint::AnalyzeBatch => batch::analyze_batch(app, request).await,
        Endpoint::AnalyzeStream => stream::analyze_stream(app, request).await,
        Endpoint::Templates => templates::templates(app, &request),
        Endpoint::Health => v1::health(app),
        Endpoint::Root => v1::root(),
        Endpoint::Live => ops::live(),
        Endpoint::Ready => ops::ready(app).await,
        Endpoint::Devices => devices::devices(app),
        Endpoint::Metrics => ops::metrics(app),
        Endpoint::OpenApi => docs::openapi(),
        Endpoint::Swagger => docs::swagger(),
        Endpoint::Redoc => docs::redoc(),
        Endpoint::SwaggerFile | Endpoint::RedocFile => docs::file(&request),
    }
}

fn allow(mut answer: Response<Body>, route: &Route) -> Response<Body> {
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(route.methods()));
    answer
}

/// 307 keeps method and body.
fn redirect(route: &Route, query: Option<&str>) -> Response<Body> {
    let mut answer = empty(StatusCode::TEMPORARY_REDIRECT);
    let location = match query {
        Some(query) => format!("{}?{query}", route.pattern),
        None => route.pattern.to_owned(),
    };
    if let Ok(location) = HeaderValue::try_from(location) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for route in ROUTES {
            let path = route.pattern.replace(":file", "x.js");
            assert!(matches!(Place::of(&path), Place::Route(found) if found.pattern == route.pattern), "{path}");
        }
        for (path, canonical) in [
            ("/api/v1", "/api/v1/"),
            ("/api/v1/analyze/", "/api/v1/analyze"),
            ("/docs/", "/docs"),
            ("/livez/", "/livez"),
        ] {
            assert!(matches!(Place::of(path), Place::Redirect(route) if route.pattern == canonical), "{path}");
        }
        for path in ["/", "", "*", "/docs/a/b", "/api/v1//", "//evil.example/", "/API/V1/analyze", "/docs/:file/"] {
            assert_eq!(Place::of(path), Place::Unknown, "{path}");
        }
    }
}
