package cdbhash

import (
	"bytes"
	"math"
)

// Only ISO spellings are read here: they mean the same whatever DateStyle
// says.

// number reads exactly n digits off s.
func number(s []byte, n int) (v int, rest []byte, ok bool) {
	if len(s) < n || !allDigits(s[:n]) {
		return 0, nil, false
	}
	for _, c := range s[:n] {
		v = v*10 + int(c-'0')
	}
	return v, s[n:], true
}

// mark takes one byte c off s.
func mark(s []byte, c byte) ([]byte, bool) {
	if len(s) == 0 || s[0] != c {
		return nil, false
	}
	return s[1:], true
}

var monthDays = [13]int{0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

// era takes BC, which comes last, off s.
func era(s []byte) (rest []byte, bc bool) { return bytes.CutSuffix(s, []byte(" BC")) }

// parseDate reads YYYY-MM-DD, the year with more digits if it needs them, and
// answers days since 2000-01-01. bc says that the year is one before Christ.
func parseDate(s []byte, bc bool) (days int64, rest []byte, ok bool) {
	const longest = 7 // digits of a year
	width := 0
	for width < len(s) && width < longest && digit(s[width]) {
		width++
	}
	if width > 4 && s[0] == '0' {
		return 0, nil, false // more zeros than the server writes
	}
	year, s, ok := number(s, max(width, 4))
	if !ok || year == 0 {
		return 0, nil, false
	}
	if s, ok = mark(s, '-'); !ok {
		return 0, nil, false
	}
	m, s, ok := number(s, 2)
	if !ok || m < 1 || m > 12 {
		return 0, nil, false
	}
	if s, ok = mark(s, '-'); !ok {
		return 0, nil, false
	}
	if bc {
		year = 1 - year
	}
	// Whole cycles of the calendar, so that no year is negative. Years of
	// more than four digits before Christ are out of any range.
	const cycles, cycleDays = 25, 146097
	y := year + 400*cycles
	if y < 0 {
		return 0, nil, false
	}
	d, s, ok := number(s, 2)
	last := monthDays[m]
	if m == 2 && y%4 == 0 && (y%100 != 0 || y%400 == 0) {
		last = 29
	}
	if !ok || d < 1 || d > last {
		return 0, nil, false
	}
	// Years begin in March here, so that the leap day is the last one.
	if m <= 2 {
		y--
		m += 12
	}
	const epoch = 730425 + cycles*cycleDays // the same sum for 2000-01-01
	days = int64(365*y + y/4 - y/100 + y/400 + (153*(m-3)+2)/5 + d - 1)
	return days - epoch, s, true
}

// The first day of dates and the first one after the last, since 2000-01-01.
const (
	firstDay = -2451545
	endDay   = 2147483494 + firstDay
)

// parseWholeDate reads a date and answers what stands for it: days since
// 2000-01-01, or an end of the range for infinity.
func parseWholeDate(s []byte) (int32, bool) {
	switch string(s) {
	case "infinity":
		return math.MaxInt32, true
	case "-infinity":
		return math.MinInt32, true
	}
	s, bc := era(s)
	days, rest, ok := parseDate(s, bc)
	return int32(days), ok && len(rest) == 0 && days >= firstDay && days < endDay
}

const (
	usecPerSec = 1000000
	usecPerDay = 86400 * usecPerSec
)

// parseTime reads HH:MM[:SS[.f]] up to 24:00:00 and answers microseconds since
// midnight and how many digits the fraction has.
func parseTime(s []byte) (us int64, frac int, rest []byte, ok bool) {
	h, s, ok := number(s, 2)
	if !ok || h > 24 {
		return 0, 0, nil, false
	}
	if s, ok = mark(s, ':'); !ok {
		return 0, 0, nil, false
	}
	m, s, ok := number(s, 2)
	if !ok || m > 59 {
		return 0, 0, nil, false
	}
	us = int64(h*3600+m*60) * usecPerSec
	t, more := mark(s, ':')
	if !more {
		return us, 0, s, us <= usecPerDay
	}
	sec, s, ok := number(t, 2)
	if !ok || sec > 59 {
		return 0, 0, nil, false
	}
	us += int64(sec) * usecPerSec
	if t, more = mark(s, '.'); !more {
		return us, 0, s, us <= usecPerDay
	}
	unit := int64(usecPerSec)
	for s = t; len(s) > 0 && digit(s[0]); s = s[1:] {
		if frac++; frac > 6 {
			return 0, 0, nil, false // would be rounded
		}
		unit /= 10
		us += int64(s[0]-'0') * unit
	}
	return us, frac, s, frac > 0 && us <= usecPerDay
}

// The first instant of timestamps and the first one after the last, in
// microseconds since 2000-01-01 00:00:00.
const (
	firstInstant = firstDay * usecPerDay
	endInstant   = 9223371331200000000
)

// parseTimestamp reads a date, a blank or T, a time, and where zoned an
// offset from UTC, which must be there: without it TimeZone decides. It
// answers microseconds since 2000-01-01 00:00:00, or an end of their range for
// infinity.
func parseTimestamp(s []byte, typmod int32, zoned bool) (int64, bool) {
	switch string(s) {
	case "infinity":
		return math.MaxInt64, true
	case "-infinity":
		return math.MinInt64, true
	}
	s, bc := era(s)
	days, s, ok := parseDate(s, bc)
	// A local time may be a little outside what its UTC is within.
	if !ok || days < firstDay-1 || days > endInstant/usecPerDay {
		return 0, false
	}
	var us, off int64
	if len(s) > 0 {
		var frac int
		if s[0] != ' ' && s[0] != 'T' {
			return 0, false
		}
		us, frac, s, ok = parseTime(s[1:])
		if !ok || typmod >= 0 && frac > int(typmod) {
			return 0, false
		}
	} else if zoned {
		return 0, false
	}
	if zoned {
		if off, ok = parseOffset(s); !ok {
			return 0, false
		}
		s = nil
	}
	us += days*usecPerDay - off
	return us, len(s) == 0 && us >= firstInstant && us < endInstant
}

// parseOffset reads Z, or ±HH[:MM[:SS]] of less than 16 hours, and answers
// microseconds east of UTC.
func parseOffset(s []byte) (int64, bool) {
	if len(s) == 1 && s[0] == 'Z' {
		return 0, true
	}
	if len(s) == 0 || s[0] != '+' && s[0] != '-' {
		return 0, false
	}
	neg := s[0] == '-'
	h, s, ok := number(s[1:], 2)
	if !ok || h > 15 {
		return 0, false
	}
	off := int64(h * 3600)
	for _, unit := range [2]int64{60, 1} {
		if len(s) == 0 {
			break
		}
		if s, ok = mark(s, ':'); !ok {
			return 0, false
		}
		var v int
		if v, s, ok = number(s, 2); !ok || v > 59 {
			return 0, false
		}
		off += int64(v) * unit
	}
	off *= usecPerSec
	if neg {
		off = -off
	}
	return off, len(s) == 0
}
