package topology

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/trunkline-db/trunkline/internal/atomicfile"
)

// The single letters of gp_segment_configuration.
const (
	RolePrimary   byte = 'p'
	RoleMirror    byte = 'm'
	ModeSynced    byte = 's'
	ModeNotInSync byte = 'n'
	StatusUp      byte = 'u'
	StatusDown    byte = 'd'
)

// ContentCoordinator is the content id of the coordinator and its standby.
const ContentCoordinator int16 = -1

// MaxDbid is the greatest dbid the catalog's smallint column can hold; the
// least is 1.
const MaxDbid = 32767

// Instance is one row of gp_segment_configuration.
type Instance struct {
	Dbid          uint16 // unique in the cluster, 1..MaxDbid
	Content       int16  // ContentCoordinator, or 0..N-1; a primary and its mirror share it
	Role          byte   // the role it plays now: RolePrimary or RoleMirror
	PreferredRole byte   // the role it was made for
	Mode          byte   // ModeSynced or ModeNotInSync
	Status        byte   // StatusUp or StatusDown
	Port          int    // where clients connect, 1..65535; not the proxy's port
	Hostname      string
	Address       string // the host's name or address used between instances
	Datadir       string // absolute path
}

// IsCoordinator says whether the instance is the acting coordinator.
func (i Instance) IsCoordinator() bool {
	return i.Content == ContentCoordinator && i.Role == RolePrimary
}

// IsStandby says whether the instance is the coordinator's standby.
func (i Instance) IsStandby() bool {
	return i.Content == ContentCoordinator && i.Role == RoleMirror
}

// IsPrimary says whether the instance is the acting primary of a segment.
func (i Instance) IsPrimary() bool {
	return i.Content >= 0 && i.Role == RolePrimary
}

// String names the instance as log lines and errors do.
func (i Instance) String() string {
	return fmt.Sprintf("seg%d:dbid%d at %s:%d", i.Content, i.Dbid, i.Address, i.Port)
}

// separator stands between the fields of a line. Fields are not quoted, so
// none may hold it.
const separator = "|"

// ReadFile reads the instances of a cluster in the order of the file's lines.
// An error names the file, the line and the field.
func ReadFile(path string) ([]Instance, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := parseFile(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// WriteFile replaces the file by the instances, one a line, sorted by dbid.
// Readers see the old file or the new one, never half of it. It refuses rows
// that ReadFile would not take back.
func WriteFile(path string, instances []Instance) error {
	list := slices.Clone(instances)
	slices.SortFunc(list, func(a, b Instance) int { return int(a.Dbid) - int(b.Dbid) })
	var b bytes.Buffer
	for _, i := range list {
		fmt.Fprintf(&b, "%d|%d|%c|%c|%c|%c|%d|%s|%s|%s\n", i.Dbid, i.Content, i.Role,
			i.PreferredRole, i.Mode, i.Status, i.Port, i.Hostname, i.Address, i.Datadir)
	}
	back, err := parseFile(b.Bytes())
	if err == nil && !slices.Equal(back, list) {
		err = errors.New("a field holds a line break or surrounding blanks")
	}
	if err != nil {
		return fmt.Errorf("%s not written: %w", path, err)
	}
	return atomicfile.Write(path, b.Bytes(), 0o644)
}

func parseFile(b []byte) ([]Instance, error) {
	var list []Instance
	seen := map[uint16]int{}
	for n, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		if line == "" && len(b) <= 1 {
			break
		}
		i, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		if first, dup := seen[i.Dbid]; dup {
			return nil, fmt.Errorf("line %d: dbid %d is already on line %d", n+1, i.Dbid, first)
		}
		seen[i.Dbid] = n + 1
		list = append(list, i)
	}
	return list, nil
}

func parseLine(line string) (Instance, error) { return ParseRow(strings.Split(line, separator)) }

// ParseRow reads a row of gp_segment_configuration: the text of its ten
// columns in the catalog's order.
func ParseRow(f []string) (Instance, error) {
	if len(f) != 10 {
		return Instance{}, fmt.Errorf("%d fields, want the 10 of gp_segment_configuration", len(f))
	}
	var i Instance
	var err error
	number := func(name, s string, low, high int) int {
		v, e := strconv.Atoi(s)
		if (e != nil || v < low || v > high) && err == nil {
			err = fmt.Errorf("%s %q is not a number from %d to %d", name, s, low, high)
		}
		return v
	}
	letter := func(name, s string, a, b byte) byte {
		if s != string(a) && s != string(b) {
			if err == nil {
				err = fmt.Errorf("%s %q is neither %q nor %q", name, s, a, b)
			}
			return a
		}
		return s[0]
	}
	text := func(name, s string) string {
		if (s == "" || strings.TrimSpace(s) != s || strings.ContainsAny(s, "\r\x00")) && err == nil {
			err = fmt.Errorf("%s %q is empty or has blanks around it", name, s)
		}
		return s
	}
	i.Dbid = uint16(number("dbid", f[0], 1, MaxDbid))
	i.Content = int16(number("content", f[1], -1, MaxDbid))
	i.Role = letter("role", f[2], RolePrimary, RoleMirror)
	i.PreferredRole = letter("preferred_role", f[3], RolePrimary, RoleMirror)
	i.Mode = letter("mode", f[4], ModeSynced, ModeNotInSync)
	i.Status = letter("status", f[5], StatusUp, StatusDown)
	i.Port = number("port", f[6], 1, 65535)
	i.Hostname = text("hostname", f[7])
	i.Address = text("address", f[8])
	i.Datadir = text("datadir", f[9])
	return i, err
}
