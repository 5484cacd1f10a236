// Package datadir knows the files of one instance's data directory: where
// each lies and how the facts about the instance are read from them. The
// layout is Greenplum's where Greenplum has one (postgresql.conf,
// internal.auto.conf, postmaster.pid) and adds one private folder,
// "trunkline", for the sockets and generated files of the embedded cluster.
package datadir

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Dir is the data directory of one instance, an absolute path.
type Dir string

// MaxLen is the longest data directory path, in bytes, for which every unix
// socket below it still fits the kernel's 107 byte limit.
const MaxLen = 107 - len("/trunkline/rows/.s.PGSQL.65535")

func (d Dir) join(e ...string) string {
	return filepath.Join(append([]string{string(d)}, e...)...)
}

// Conf is the user's postgresql.conf: PostgreSQL's parameters and Greenplum's.
func (d Dir) Conf() string { return d.join("postgresql.conf") }

// HBA is the user's pg_hba.conf, obeyed for connections to the instance's port.
func (d Dir) HBA() string { return d.join("pg_hba.conf") }

// UserMaps is the user's pg_ident.conf, for the option map in pg_hba.conf.
func (d Dir) UserMaps() string { return d.join("pg_ident.conf") }

// InternalAutoConf holds gp_dbid, as in Greenplum.
func (d Dir) InternalAutoConf() string { return d.join("internal.auto.conf") }

// PostmasterPid is PostgreSQL's own lock file.
func (d Dir) PostmasterPid() string { return d.join("postmaster.pid") }

// Private is the folder (0700) of everything that is Trunkline's own.
func (d Dir) Private() string { return d.join("trunkline") }

// PGConf is the generated configuration the PostgreSQL server is started with.
func (d Dir) PGConf() string { return d.join("trunkline", "postgresql.conf") }

// PGHBA is the generated pg_hba.conf of the PostgreSQL server, which is only
// reachable through SocketDir.
func (d Dir) PGHBA() string { return d.join("trunkline", "pg_hba.conf") }

// SocketDir is PostgreSQL's unix_socket_directories; the socket in it is
// .s.PGSQL.<port>.
func (d Dir) SocketDir() string { return d.join("trunkline") }

// QESocket is where the instance accepts dispatch connections from the QD.
func (d Dir) QESocket() string { return d.join("trunkline", "qe.sock") }

// ProxySocket is the proxy's control and status socket.
func (d Dir) ProxySocket() string { return d.join("trunkline", "proxy.sock") }

// RowsDir is the folder of the row source socket (.s.PGSQL.<port>), from
// which the coordinator's PostgreSQL reads what motions bring.
func (d Dir) RowsDir() string { return d.join("trunkline", "rows") }

// ReadsDir is the folder of the files that say what the server may read with
// the rights of a view's owner. It is there when it is needed.
func (d Dir) ReadsDir() string { return d.join("trunkline", "reads") }

// InstanceLock is locked with flock for as long as the instance process lives
// and holds its pid.
func (d Dir) InstanceLock() string { return d.join("trunkline", "instance.pid") }

// LogDir holds postgres.log, instance.log and proxy.log.
func (d Dir) LogDir() string { return d.join("log") }

// Postmaster is what PostgreSQL's lock file says of the running server.
type Postmaster struct {
	Pid    int
	Port   int
	Status string // "ready", "starting", "stopping", "standby"; "" while very young
}

// ErrNotRunning is returned when there is no postmaster.pid.
var ErrNotRunning = errors.New("postmaster.pid file does not exist")

// Postmaster reads postmaster.pid. It returns an error matching ErrNotRunning
// when there is none. A pid read from a stale file is returned as it stands.
func (d Dir) Postmaster() (Postmaster, error) {
	b, err := os.ReadFile(d.PostmasterPid())
	if errors.Is(err, os.ErrNotExist) {
		return Postmaster{}, fmt.Errorf("%s: %w", d, ErrNotRunning)
	}
	if err != nil {
		return Postmaster{}, err
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 4 {
		return Postmaster{}, fmt.Errorf("%s: too few lines", d.PostmasterPid())
	}
	var pm Postmaster
	if pm.Pid, err = strconv.Atoi(strings.TrimSpace(lines[0])); err != nil {
		return Postmaster{}, fmt.Errorf("%s: line 1: %w", d.PostmasterPid(), err)
	}
	if pm.Port, err = strconv.Atoi(strings.TrimSpace(lines[3])); err != nil {
		return Postmaster{}, fmt.Errorf("%s: line 4: %w", d.PostmasterPid(), err)
	}
	if len(lines) > 7 {
		pm.Status = strings.TrimSpace(lines[7])
	}
	return pm, nil
}

// ICProxySocket is the path on which backends reach the proxy of the instance
// with that postmaster (wire protocol, section 1).
func ICProxySocket(port, pid int) string {
	return fmt.Sprintf("/tmp/.s.PGSQL.ic_proxy.%d.%d", port, pid)
}

// Dbid reads gp_dbid from internal.auto.conf, or from postgresql.conf when
// that has none.
func (d Dir) Dbid() (uint16, error) {
	n, err := d.number("gp_dbid", d.InternalAutoConf(), d.Conf())
	return uint16(n), err
}

// Content reads gp_contentid (-1 for coordinator and standby) from
// postgresql.conf, or from internal.auto.conf.
func (d Dir) Content() (int16, error) {
	n, err := d.number("gp_contentid", d.Conf(), d.InternalAutoConf())
	return int16(n), err
}

// number reads the last setting of name in the first file that has one.
func (d Dir) number(name string, files ...string) (int, error) {
	for _, path := range files {
		v, ok, err := lastSetting(path, name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		if ok {
			n, err := strconv.Atoi(v)
			if err != nil {
				return 0, fmt.Errorf("%s: %s = %q is not a number", path, name, v)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("%s is not set in %s", name, strings.Join(files, " or "))
}

func lastSetting(path, name string) (value string, ok bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line, _, _ := strings.Cut(sc.Text(), "#")
		k, v, found := strings.Cut(line, "=")
		if !found {
			k, v, found = strings.Cut(strings.TrimSpace(line), " ")
		}
		if found && strings.EqualFold(strings.TrimSpace(k), name) {
			value, ok = strings.Trim(strings.TrimSpace(v), "'"), true
		}
	}
	return value, ok, sc.Err()
}
