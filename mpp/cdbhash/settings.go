package cdbhash

import (
	"regexp"
	"strings"
)

// Settings are those of a PostgreSQL server's parameters that decide how it
// writes values as text. The zero value stands for settings that are not known.
type Settings struct {
	DateStyle        string // as SHOW says: "ISO, MDY"
	TimeZone         string // as SHOW says: "Europe/Vienna", "<+02>-02"
	ExtraFloatDigits int    // -15..3
}

// zones are the names of time zones that are less than 16 hours from UTC: those
// of the time zone database, and POSIX ones without daylight saving time.
// Offsets of more hours are no valid input.
var zones = regexp.MustCompile(`^(?:<[A-Za-z0-9:+-]+>|[A-Za-z_]+(?:[/-][A-Za-z_]+)*)(?:[+-]?(?:0?[0-9]|1[0-4])(?::[0-5][0-9])?)?$`)

// Reads says whether FromText reads every value of a built-in type as a server
// with these settings writes it, and so that values which the server takes for
// equal get equal hashes in their type's Family. Other parameters,
// such as bytea_output, may have any value.
func (s Settings) Reads(typeOID uint32) bool {
	switch typeOID {
	case oidInt2, oidInt4, oidInt8, oidText, oidVarchar, oidBPChar, oidBool, oidOID, oidUUID, oidBytea, oidNumeric, oidTime,
		oidInet, oidCIDR, oidMacaddr:
		return true
	case oidFloat4, oidFloat8:
		return s.ExtraFloatDigits > 0 // else different values look alike
	case oidDate, oidTimestamp:
		return strings.HasPrefix(s.DateStyle, "ISO,")
	case oidTimestampTZ:
		return strings.HasPrefix(s.DateStyle, "ISO,") && zones.MatchString(s.TimeZone)
	}
	return false
}
