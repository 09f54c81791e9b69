//! `GET /api/v1/templates`: what is known of the kinds of messages, a page at a time.

use std::time::SystemTime;

use hyper::{Request, Response, StatusCode, body::Incoming};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    answer::{Body, ErrorDetail, detail, json_answer, unprocessable},
    app::App,
    problem::{Problem, Rule},
    query,
};
use crate::templates::{Entry, Listing, Order, Page, SortBy};

/// Templates of a page that names no limit.
const USUAL: usize = 100;
/// Most templates of a page.
const MOST: u64 = 1000;
/// Largest offset: no book has more.
const FARTHEST: u64 = 1_000_000;

/// Which templates, as the documentation has it. Unknown parameters do not count; of equal ones the last does.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "for the documentation alone")]
pub struct ListingQuery {
    /// By what they are sorted: `count` (default), `rate`, `first_seen`, `last_seen`, `score` or `anomalies`.
    #[param(inline)]
    sort: Option<SortName>,
    /// `desc` (default): the largest first, or `asc`.
    #[param(inline)]
    order: Option<OrderName>,
    /// Most templates of the page; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Templates before the page. What is learned between two calls may move a template from one page to another.
    #[param(minimum = 0, maximum = 1_000_000)]
    offset: Option<usize>,
}

/// The names of orders, for the documentation alone.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the documentation alone")]
enum SortName {
    Count,
    Rate,
    FirstSeen,
    LastSeen,
    Score,
    Anomalies,
}

/// The names of the two ends, for the documentation alone.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the documentation alone")]
enum OrderName {
    Desc,
    Asc,
}

/// Part of the templates.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "templates": [{
        "template_id": "d3c8566fce90703d", "template": "disk <num> full", "verdict": "anomaly", "score": 0.93,
        "anomalies": 12, "normals": 0, "count": 12, "rate": 0.02,
        "first_seen": "2026-11-25T09:30:00.000Z", "last_seen": "2026-11-25T09:41:07.250Z"
    }],
    "total": 1, "offset": 0, "limit": 100, "seen": 12, "since": "2026-11-25T09:30:00.000Z", "forgotten": 0
}))]
pub struct Templates {
    /// The templates, in order; equal ones by name.
    templates: Vec<ListedTemplate>,
    /// Templates that are known.
    total: usize,
    /// Templates before the first of these.
    offset: usize,
    /// Most templates of the page.
    limit: usize,
    /// Logs learned from.
    seen: u64,
    /// Since when, in UTC.
    since: String,
    /// Templates that were forgotten to make room for others.
    forgotten: u64,
}

/// One template.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListedTemplate {
    /// Its name, as entries of answers have it.
    template_id: String,
    /// Logs of it without what varies.
    #[schema(value_type = String)]
    template: std::sync::Arc<str>,
    /// What the verdicts with the configured labels were: `anomaly`, `normal`, `mixed`, or `null` if there was none yet.
    #[schema(value_type = Option<String>)]
    verdict: Option<&'static str>,
    /// The score of the anomaly label in the last of them, 0 to 1.
    score: Option<f32>,
    /// Verdicts that said anomaly.
    anomalies: u64,
    /// Verdicts that did not.
    normals: u64,
    /// Logs of it.
    count: u64,
    /// Logs of it a second at present, over about the last ten minutes.
    rate: f64,
    /// When the first log came, in UTC.
    first_seen: String,
    /// When the last log came, in UTC.
    last_seen: String,
}

impl From<Entry> for ListedTemplate {
    fn from(entry: Entry) -> Self {
        let tally = entry.tally;
        let verdict = match (tally.anomalies, tally.normals) {
            (0, 0) => None,
            (_, 0) => Some("anomaly"),
            (0, _) => Some("normal"),
            _ => Some("mixed"),
        };
        Self {
            template_id: entry.id.to_string(),
            template: entry.template,
            verdict,
            score: tally.score,
            anomalies: tally.anomalies,
            normals: tally.normals,
            count: entry.count,
            rate: (entry.rate * 1e6).round() / 1e6,
            first_seen: rfc3339(entry.first_seen_ms),
            last_seen: rfc3339(entry.last_seen_ms),
        }
    }
}

/// The kinds of messages
///
/// Each log belongs to a template: what is left of it without its prefix, and without numbers, addresses and the like. This
/// lists templates with what is known of them. There are none unless the operator has set `templates.enabled`.
#[utoipa::path(
    get, path = "/api/v1/templates", tag = "analysis", operation_id = "templates", params(ListingQuery),
    security((), ("bearer" = [])),
    responses(
        (status = 200, description = "A page of templates", body = Templates),
        (status = 401, description = "Keys are asked for, and the request has none of them", body = ErrorDetail<'static>),
        (status = 404, description = "Templates are not learned here", body = ErrorDetail<'static>),
        (status = 422, description = "Parameters are wrong; every problem is listed",
            body = super::answer::ValidationErrors<'static>),
        (status = 429, description = "The key has made too many requests", body = ErrorDetail<'static>)
    )
)]
pub fn templates(app: &App, request: &Request<Incoming>) -> Response<Body> {
    let listing = match read(request.uri().query().unwrap_or_default()) {
        Ok(listing) => listing,
        Err(problems) => return unprocessable(&problems),
    };
    let Some(novelty) = &app.novelty else {
        return detail(
            StatusCode::NOT_FOUND,
            "Templates are not learned here. The server must have templates.enabled set.",
        );
    };
    let Page { entries, total, seen, since_ms, forgotten } = novelty.page(listing, SystemTime::now());
    let page = Templates {
        templates: entries.into_iter().map(ListedTemplate::from).collect(),
        total,
        offset: listing.offset,
        limit: listing.limit,
        seen,
        since: rfc3339(since_ms),
        forgotten,
    };
    json_answer(StatusCode::OK, &page)
}

fn read(text: &str) -> Result<Listing, Vec<Problem<'static>>> {
    let mut listing = Listing { limit: USUAL, ..Listing::default() };
    query::read(text, |name, value| {
        Some(match name {
            "sort" => ("sort", sort(value).map(|sort| listing.sort = sort)),
            "order" => ("order", order(value).map(|order| listing.order = order)),
            "limit" => ("limit", whole(value, 1, MOST).map(|limit| listing.limit = limit)),
            "offset" => ("offset", whole(value, 0, FARTHEST).map(|offset| listing.offset = offset)),
            _ => return None,
        })
    })?;
    Ok(listing)
}

fn sort(value: &str) -> Result<SortBy, Rule> {
    Ok(match value {
        "count" => SortBy::Count,
        "rate" => SortBy::Rate,
        "first_seen" => SortBy::FirstSeen,
        "last_seen" => SortBy::LastSeen,
        "score" => SortBy::Score,
        "anomalies" => SortBy::Anomalies,
        _ => {
            let reason = "sort must be count, rate, first_seen, last_seen, score or anomalies";
            return Err(Rule::Value { reason: reason.into() });
        }
    })
}

fn order(value: &str) -> Result<Order, Rule> {
    match value {
        "asc" => Ok(Order::Ascending),
        "desc" => Ok(Order::Descending),
        _ => Err(Rule::Value { reason: "order must be asc or desc".into() }),
    }
}

fn whole(value: &str, min: u64, max: u64) -> Result<usize, Rule> {
    match value.trim().parse::<i128>().map_err(|_| Rule::IntParsing)? {
        number if number < i128::from(min) => Err(Rule::AtLeast { min }),
        number if number > i128::from(max) => Err(Rule::AtMost { max }),
        number => usize::try_from(number).map_err(|_| Rule::AtMost { max }),
    }
}

/// `2026-11-25T09:30:00.000Z`. The date is found as in "Euclidean affine functions and their application to calendar
/// algorithms" (Neri, Schneider, 2023), in its plain form: years begin in March, so that a leap day is a year's last.
pub fn rfc3339(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Days since 0000-03-01, in eras of 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year_of_era + next;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (1_795_600_800, "2026-11-25T10:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(rfc3339(unix_s * 1000 + 7), format!("{text}.007Z"));
        }
    }

    #[test]
    fn parameters() {
        let usual = Listing { limit: 100, ..Listing::default() };
        assert_eq!(read("").unwrap(), usual);
        assert_eq!(
            read("x=1&sort=rate&order=asc&limit=7&offset=0&limit=1000").unwrap(),
            Listing { sort: SortBy::Rate, order: Order::Ascending, offset: 0, limit: 1000 }
        );
        let problems =
            read("sort=x&order=&limit=0&offset=-1&limit=1001&offset=99999999999999999999&limit=ten").unwrap_err();
        let kinds: Vec<_> = problems.iter().map(|problem| problem.r#type).collect();
        assert_eq!(
            kinds,
            [
                "value_error",
                "value_error",
                "greater_than_equal",
                "greater_than_equal",
                "less_than_equal",
                "less_than_equal",
                "int_parsing"
            ]
        );
    }
}
