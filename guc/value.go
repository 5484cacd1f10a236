package guc

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// SQLSTATE codes of this package's errors.
const (
	CodeInvalidValue  = "22023" // invalid_parameter_value
	CodeUnknown       = "42704" // undefined_object
	CodeCannotChange  = "55P02" // cant_change_runtime_param
	CodeNotPrivileged = "42501" // insufficient_privilege
)

// Error is a refusal in PostgreSQL's words.
type Error struct {
	Code    string // SQLSTATE
	Message string
	Detail  string // may be empty
	Hint    string // may be empty
}

func (e *Error) Error() string {
	s := e.Message
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Hint != "" {
		s += " (" + strings.TrimSuffix(e.Hint, ".") + ")"
	}
	return s
}

// ErrUnknown says that no parameter has that name.
func ErrUnknown(name string) *Error {
	return &Error{Code: CodeUnknown, Message: fmt.Sprintf("unrecognized configuration parameter %q", name)}
}

// ErrCannotSet says why SET in a session is refused for a parameter of that
// context. For Suset it is the refusal for an ordinary role.
func ErrCannotSet(name string, c Context) *Error {
	e := &Error{Code: CodeCannotChange}
	switch c {
	case Internal:
		e.Message = fmt.Sprintf("parameter %q cannot be changed", name)
	case Postmaster:
		e.Message = fmt.Sprintf("parameter %q cannot be changed without restarting the server", name)
	case Sighup:
		e.Message = fmt.Sprintf("parameter %q cannot be changed now", name)
	case Backend:
		e.Message = fmt.Sprintf("parameter %q cannot be set after connection start", name)
	default:
		e.Code = CodeNotPrivileged
		e.Message = fmt.Sprintf("permission denied to set parameter %q", name)
	}
	return e
}

func (p *Parameter) invalid(value, hint string) *Error {
	return &Error{Code: CodeInvalidValue, Hint: hint,
		Message: fmt.Sprintf("invalid value for parameter %q: \"%s\"", p.Name, value)}
}

// Parse reads a value as SET takes it and returns its canonical form: on/off,
// a number in the parameter's unit, an enum value in lower case, a string as
// it is. The error is an *Error.
func (p *Parameter) Parse(value string) (canonical string, err error) {
	switch p.Type {
	case Bool:
		b, ok := parseBool(value)
		if !ok {
			return "", &Error{Code: CodeInvalidValue, Message: fmt.Sprintf("parameter %q requires a Boolean value", p.Name)}
		}
		if b {
			return "on", nil
		}
		return "off", nil
	case Enum:
		for _, v := range p.Enum {
			if strings.EqualFold(v, value) {
				return v, nil
			}
		}
		return "", p.invalid(value, "Available values: "+strings.Join(p.Enum, ", ")+".")
	case Int, Real:
		return p.parseNumber(value)
	default:
		if strings.ContainsRune(value, 0) {
			return "", p.invalid(strings.ReplaceAll(value, "\x00", ""), "")
		}
		if p.check != nil {
			if err := p.check(value); err != nil {
				e := p.invalid(value, "")
				e.Detail = err.Error()
				return "", e
			}
		}
		return value, nil
	}
}

// parseBool takes unique beginnings of the words, as PostgreSQL does: "o" is
// none.
func parseBool(s string) (value, ok bool) {
	s = strings.ToLower(s)
	for _, w := range []struct {
		word  string
		least int
		value bool
	}{{"true", 1, true}, {"false", 1, false}, {"yes", 1, true}, {"no", 1, false},
		{"on", 2, true}, {"off", 2, false}, {"1", 1, true}, {"0", 1, false}} {
		if len(s) >= w.least && strings.HasPrefix(w.word, s) {
			return w.value, true
		}
	}
	return false, false
}

func (p *Parameter) parseNumber(value string) (string, error) {
	v, hint, ok := p.scan(value)
	if p.Type == Int {
		v = math.RoundToEven(v)
		if ok && (v > math.MaxInt32 || v < math.MinInt32) {
			return "", p.invalid(value, "Value exceeds integer range.")
		}
	}
	if !ok {
		return "", p.invalid(value, hint)
	}
	if v < p.Min || v > p.Max {
		unit := p.Unit
		if unit != "" {
			unit = " " + unit
		}
		return "", &Error{Code: CodeInvalidValue, Message: fmt.Sprintf("%s%s is outside the valid range for parameter %q (%s .. %s)",
			p.format(v), unit, p.Name, p.MinText(), p.MaxText())}
	}
	return p.format(v), nil
}

func (p *Parameter) format(v float64) string {
	if v == 0 {
		v = 0 // no "-0"
	}
	if p.Type == Int {
		return strconv.FormatInt(int64(v), 10)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// unit is a name and its size, in bytes or in microseconds.
type unit struct {
	name string
	size float64
}

// Largest first, as SHOW tries them.
var (
	memoryUnits = []unit{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"kB", 1 << 10}, {"B", 1}}
	timeUnits   = []unit{{"d", 86400e6}, {"h", 3600e6}, {"min", 60e6}, {"s", 1e6}, {"ms", 1e3}, {"us", 1}}
)

const (
	memoryHint = `Valid units for this parameter are "B", "kB", "MB", "GB", and "TB".`
	timeHint   = `Valid units for this parameter are "us", "ms", "s", "min", "h", and "d".`
)

// units returns the units a parameter takes and the size of its own, which may
// be a multiple of one, as "8kB".
func (p *Parameter) units() (all []unit, own float64, hint string) {
	name := strings.TrimLeft(p.Unit, "0123456789")
	times := 1.0
	if n, err := strconv.Atoi(strings.TrimSuffix(p.Unit, name)); err == nil {
		times = float64(n)
	}
	for _, u := range memoryUnits {
		if u.name == name {
			return memoryUnits, times * u.size, memoryHint
		}
	}
	for _, u := range timeUnits {
		if u.name == name {
			return timeUnits, times * u.size, timeHint
		}
	}
	return nil, 0, ""
}

// scan reads a number and its unit and converts it to the parameter's own.
func (p *Parameter) scan(value string) (v float64, hint string, ok bool) {
	s := strings.Trim(value, " \t\n\v\f\r")
	n := numberLen(s)
	num, suffix := s[:n], strings.TrimLeft(s[n:], " \t\n\v\f\r")
	if v, ok = parseDigits(num); !ok {
		return 0, "", false
	}
	if suffix == "" {
		return v, "", true
	}
	all, own, hint := p.units()
	for i, u := range all {
		if u.name != suffix {
			continue
		}
		v = v * u.size / own
		// A fraction of a unit counts in the next smaller one, as "1.5h" does.
		if i+1 < len(all) && all[i+1].size > own {
			step := all[i+1].size / own
			v = math.RoundToEven(v/step) * step
		}
		return v, "", true
	}
	return 0, hint, false
}

// numberLen is the length of the C number at the start of s.
func numberLen(s string) int {
	i := 0
	if i < len(s) && (s[i] == '+' || s[i] == '-') {
		i++
	}
	if len(s) > i+2 && s[i] == '0' && (s[i+1] == 'x' || s[i+1] == 'X') && isHex(s[i+2]) {
		for i += 2; i < len(s) && isHex(s[i]); i++ {
		}
		return i
	}
	for ; i < len(s) && (isDigit(s[i]) || s[i] == '.'); i++ {
	}
	if j := i; j < len(s) && (s[j] == 'e' || s[j] == 'E') {
		if j++; j < len(s) && (s[j] == '+' || s[j] == '-') {
			j++
		}
		if j < len(s) && isDigit(s[j]) {
			for ; j < len(s) && isDigit(s[j]); j++ {
			}
			return j
		}
	}
	return i
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isHex(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// parseDigits takes decimal, octal (leading 0) and hexadecimal integers and
// decimal fractions.
func parseDigits(s string) (float64, bool) {
	unsigned := strings.TrimLeft(s, "+-")
	if unsigned == "" || !isDigit(unsigned[0]) && unsigned[0] != '.' {
		return 0, false
	}
	if !strings.ContainsAny(s, ".eE") || strings.HasPrefix(strings.ToLower(unsigned), "0x") {
		base := 10
		if len(unsigned) > 1 && unsigned[0] == '0' {
			base = 8
			if unsigned[1] == 'x' || unsigned[1] == 'X' {
				base, unsigned = 16, unsigned[2:]
			}
		}
		v, err := strconv.ParseUint(unsigned, base, 63)
		if errors.Is(err, strconv.ErrRange) {
			v, err = math.MaxInt64, nil
		}
		if err != nil {
			return 0, false
		}
		if s[0] == '-' {
			return -float64(v), true
		}
		return float64(v), true
	}
	v, err := strconv.ParseFloat(s, 64)
	return v, err == nil && !math.IsInf(v, 0)
}

// Show prints a canonical value as SHOW does, a number in the greatest unit in
// which it is whole: 1h, 20ms.
func (p *Parameter) Show(canonical string) string {
	all, own, _ := p.units()
	if len(all) == 0 {
		return canonical
	}
	v, err := strconv.ParseFloat(canonical, 64)
	if err != nil || v <= 0 {
		return canonical
	}
	for _, u := range all {
		if n := v * own / u.size; n == math.Trunc(n) {
			return p.format(n) + u.name
		}
	}
	return canonical + p.Unit
}
