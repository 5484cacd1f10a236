package cdbhash

// Only ISO spellings with a four-digit year are read here: they mean the same
// whatever DateStyle says.

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

// parseDate reads YYYY-MM-DD and answers days since 2000-01-01.
func parseDate(s []byte) (days int, rest []byte, ok bool) {
	y, s, ok := number(s, 4)
	if !ok || y == 0 {
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
	d, s, ok := number(s, 2)
	last := monthDays[max(m, 0)]
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
	const epoch = 730425 // the same sum for 2000-01-01
	days = 365*y + y/4 - y/100 + y/400 + (153*(m-3)+2)/5 + d - 1
	return days - epoch, s, true
}

const usecPerSec = 1000000

// parseTime reads HH:MM[:SS[.f]] and answers microseconds since midnight and
// how many digits the fraction has.
func parseTime(s []byte) (us int64, frac int, rest []byte, ok bool) {
	h, s, ok := number(s, 2)
	if !ok || h > 23 {
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
		return us, 0, s, true
	}
	sec, s, ok := number(t, 2)
	if !ok || sec > 59 {
		return 0, 0, nil, false
	}
	us += int64(sec) * usecPerSec
	if t, more = mark(s, '.'); !more {
		return us, 0, s, true
	}
	unit := int64(usecPerSec)
	for s = t; len(s) > 0 && digit(s[0]); s = s[1:] {
		if frac++; frac > 6 {
			return 0, 0, nil, false // would be rounded
		}
		unit /= 10
		us += int64(s[0]-'0') * unit
	}
	return us, frac, s, frac > 0
}

// parseTimestamp reads a date, a blank or T, a time, and where zoned an
// offset from UTC, which must be there: without it TimeZone decides. It
// answers microseconds since 2000-01-01 00:00:00.
func parseTimestamp(s []byte, typmod int32, zoned bool) (int64, bool) {
	days, s, ok := parseDate(s)
	if !ok {
		return 0, false
	}
	us := int64(days) * 86400 * usecPerSec
	if len(s) == 0 {
		return us, !zoned
	}
	if s[0] != ' ' && s[0] != 'T' {
		return 0, false
	}
	tod, frac, s, ok := parseTime(s[1:])
	if !ok || typmod >= 0 && frac > int(typmod) {
		return 0, false
	}
	us += tod
	if !zoned {
		return us, len(s) == 0
	}
	off, ok := parseOffset(s)
	return us - off, ok
}

// parseOffset reads Z, ±HH or ±HH:MM and answers microseconds east of UTC.
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
	m := 0
	if len(s) > 0 {
		if s, ok = mark(s, ':'); !ok {
			return 0, false
		}
		if m, s, ok = number(s, 2); !ok || m > 59 || len(s) > 0 {
			return 0, false
		}
	}
	off := int64(h*3600+m*60) * usecPerSec
	if neg {
		off = -off
	}
	return off, true
}
