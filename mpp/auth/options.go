package auth

import "strings"

// Option is one setting a client asks for at connection start. Its name is
// as written, but for dashes, which have become underscores.
type Option struct {
	Name, Value string
}

// ParseOptions reads the "options" startup parameter (PGOPTIONS): words
// parted by white space, a backslash making the next byte part of a word.
// Settings are written -c name=value, -cname=value or --name=value and are
// returned in order. PostgreSQL's other switches are not taken. Errors are
// *Rejection with SQLSTATE 42601.
func ParseOptions(s string) ([]Option, error) {
	words := splitOptions(s)
	var opts []Option
	for i := 0; i < len(words); i++ {
		w := words[i]
		var setting, sign string
		switch {
		case w == "--":
			if i+1 < len(words) {
				return nil, badSwitch(words[i+1])
			}
			return opts, nil
		case strings.HasPrefix(w, "--"):
			setting, sign = w[2:], "--"
		case w == "-c":
			if i++; i == len(words) {
				return nil, badSwitch(w)
			}
			setting, sign = words[i], "-c "
		case strings.HasPrefix(w, "-c"):
			setting, sign = w[2:], "-c "
		default:
			return nil, badSwitch(w)
		}
		name, value, ok := strings.Cut(setting, "=")
		if !ok {
			return nil, fatal(codeSyntaxError, "%s%s requires a value", sign, setting)
		}
		opts = append(opts, Option{Name: strings.ReplaceAll(name, "-", "_"), Value: value})
	}
	return opts, nil
}

func badSwitch(w string) *Rejection {
	return fatal(codeSyntaxError, "invalid command-line argument for server process: %s", w).
		hint("Write settings as -c name=value or --name=value.")
}

func splitOptions(s string) []string {
	var words []string
	for i := 0; i < len(s); {
		if isSpace(s[i]) {
			i++
			continue
		}
		var w strings.Builder
		for ; i < len(s) && !isSpace(s[i]); i++ {
			if s[i] == '\\' {
				if i++; i == len(s) {
					break
				}
			}
			w.WriteByte(s[i])
		}
		words = append(words, w.String())
	}
	return words
}

// isSpace is C's isspace.
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
