package auth

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// UserMaps is a parsed pg_ident.conf: which roles those may be whom the
// operating system or a certificate knows by another name. It does not change
// and may be used by any number of goroutines.
type UserMaps struct {
	lines []mapLine
}

type mapLine struct {
	name, from, role string
	pattern          *regexp.Regexp // of a from that begins with a slash
}

// LoadUserMaps reads and parses the file at path.
func LoadUserMaps(path string) (*UserMaps, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseUserMaps(path, string(text))
}

// ParseUserMaps parses the text of a pg_ident.conf; name is the file's name for
// errors, which tell of each bad line.
func ParseUserMaps(name, text string) (*UserMaps, error) {
	m := &UserMaps{}
	var errs []error
	for _, l := range logicalLines(text) {
		fields, err := splitFields(l.text)
		if err == nil && len(fields) == 0 {
			continue
		}
		var line mapLine
		if err == nil {
			line, err = parseMapLine(fields)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d of %s: %w", l.number, name, err))
			continue
		}
		m.lines = append(m.lines, line)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return m, nil
}

func parseMapLine(fields []field) (l mapLine, err error) {
	if len(fields) < 3 {
		return l, errors.New("missing entry at end of line")
	}
	for i, to := range []*string{&l.name, &l.from, &l.role} {
		if len(fields[i]) > 1 {
			return l, errors.New("multiple values in ident field")
		}
		*to = fields[i][0].text
	}
	if p, ok := strings.CutPrefix(l.from, "/"); ok {
		if l.pattern, err = regexp.Compile(p); err != nil {
			return l, fmt.Errorf("invalid regular expression %q: %w", p, err)
		}
		if strings.Contains(l.role, `\1`) && l.pattern.NumSubexp() == 0 {
			return l, fmt.Errorf("regular expression %q has no subexpressions as requested by backreference in %q", p, l.role)
		}
	}
	return l, nil
}

// allows says whether who is known as from may be role by the map called name.
func (m *UserMaps) allows(name, from, role string) bool {
	if m == nil {
		return false
	}
	for _, l := range m.lines {
		switch {
		case l.name != name:
		case l.pattern == nil:
			if l.from == from && l.role == role {
				return true
			}
		default:
			found := l.pattern.FindStringSubmatch(from)
			if found == nil {
				continue
			}
			want := l.role
			if len(found) > 1 {
				want = strings.Replace(want, `\1`, found[1], 1)
			}
			if want == role {
				return true
			}
		}
	}
	return false
}

// checkUserMap says why who is known as from may not be role under rule r; ""
// if he may.
func (a *Authenticator) checkUserMap(r *Rule, from, role string) string {
	name := r.option("map")
	if name == "" {
		if from != role {
			return fmt.Sprintf("provided user name (%s) and authenticated user name (%s) do not match", role, from)
		}
		return ""
	}
	var maps *UserMaps
	if a.cfg.UserMaps != nil {
		var err error
		if maps, err = a.cfg.UserMaps(); err != nil {
			return fmt.Sprintf("could not load pg_ident.conf: %v", err)
		}
	}
	if !maps.allows(name, from, role) {
		return fmt.Sprintf("no match in usermap %q for user %q authenticated as %q", name, role, from)
	}
	return ""
}
