//! The hours, days, weeks, months and years of a calendar.

use std::fmt;

use jiff::Zoned;
use jiff::civil::Date;
use jiff::tz::Offset;

/// What a rule keeps the newest snapshots of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Period {
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// One hour, day, week, month or year of the calendar of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// An hour. One that a clock that is put back shows twice is two, which their offsets tell apart.
    Hour(Date, i8, Offset),
    /// A day, be it 23, 24 or 25 hours long.
    Day(Date),
    /// A week by ISO 8601, from Monday, in its own year.
    Week(i16, i8),
    /// A month of a year.
    Month(i16, i8),
    /// A year.
    Year(i16),
}

impl Bucket {
    /// The one that a time lies in.
    pub(super) fn of(period: Period, time: &Zoned) -> Self {
        let date = time.date();
        match period {
            Period::Hourly => Self::Hour(date, time.hour(), time.offset()),
            Period::Daily => Self::Day(date),
            Period::Weekly => {
                let week = date.iso_week_date();
                Self::Week(week.year(), week.week())
            }
            Period::Monthly => Self::Month(date.year(), date.month()),
            Period::Yearly => Self::Year(date.year()),
        }
    }
}

impl fmt::Display for Bucket {
    /// Names the rule and the bucket: `daily 2026-11-25`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hour(date, hour, offset) => write!(f, "hourly {date} {hour:02}:00{offset}"),
            Self::Day(date) => write!(f, "daily {date}"),
            Self::Week(year, week) => write!(f, "weekly {year}-W{week:02}"),
            Self::Month(year, month) => write!(f, "monthly {year}-{month:02}"),
            Self::Year(year) => write!(f, "yearly {year}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZoneDatabase;

    use super::*;

    #[test]
    fn buckets_are_of_the_calendar_of_the_zone() {
        use Period::{Daily, Hourly, Monthly, Weekly, Yearly};
        let table = [
            ("UTC", "2026-11-25T23:30:00Z", Daily, "daily 2026-11-25"),
            ("Europe/Berlin", "2026-11-25T23:30:00Z", Daily, "daily 2026-11-26"),
            // The clock shows 2:30 twice.
            ("Europe/Berlin", "2026-10-25T00:30:00Z", Hourly, "hourly 2026-10-25 02:00+02"),
            ("Europe/Berlin", "2026-10-25T01:30:00Z", Hourly, "hourly 2026-10-25 02:00+01"),
            // Half past is the full hour there.
            ("America/St_Johns", "2026-01-10T12:29:00Z", Hourly, "hourly 2026-01-10 08:00-03:30"),
            ("America/St_Johns", "2026-01-10T12:31:00Z", Hourly, "hourly 2026-01-10 09:00-03:30"),
            // There was no 30 December.
            ("Pacific/Apia", "2011-12-30T09:59:59Z", Daily, "daily 2011-12-29"),
            ("Pacific/Apia", "2011-12-30T10:00:00Z", Daily, "daily 2011-12-31"),
            // A week belongs to the year of its Thursday.
            ("UTC", "2027-01-03T12:00:00Z", Weekly, "weekly 2026-W53"),
            ("UTC", "2027-01-04T12:00:00Z", Weekly, "weekly 2027-W01"),
            ("UTC", "2024-12-30T12:00:00Z", Weekly, "weekly 2025-W01"),
            ("UTC", "2026-01-31T12:00:00Z", Monthly, "monthly 2026-01"),
            ("Pacific/Apia", "2026-12-31T12:00:00Z", Yearly, "yearly 2027"),
        ];
        for (zone, time, period, expected) in table {
            let zone = TimeZoneDatabase::bundled().get(zone).expect("a zone");
            let time: Timestamp = time.parse().expect("a time");
            assert_eq!(Bucket::of(period, &time.to_zoned(zone)).to_string(), expected, "{time}");
        }
    }
}
