package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/topology"
)

// Options say what cluster to make. Only Dir is required.
type Options struct {
	Dir      string // absent or empty
	Segments int    // primaries; default [DefaultSegments]
	Standby  bool   // also a standby of the coordinator
	Port     int    // the coordinator's; the others have the next ones. Default [DefaultPort]
	Address  string // what the instances listen on. Default [DefaultAddress]
	// Host, if not nil, says for each instance, of which it gets all but the
	// address, in what network it runs; Address is not used then. It is asked
	// more than once and says the same each time.
	Host func(topology.Instance) Host

	// Binary is the program copied to DIR/bin/trunkline, which runs as
	// `trunkline instance` and `trunkline proxy`. Default: this program.
	Binary string
	// Conf lines are put at the end of every postgresql.conf.
	Conf []string
	// Progress, if not nil, is told what was done, in a line without line end.
	// Calls do not overlap.
	Progress func(string)
	// Bootstrap, if not nil, is called for the coordinator and each primary
	// while nothing but its PostgreSQL server runs, reachable as superuser
	// gpadmin through a unix socket in socketDir with the instance's port. The
	// standby is cloned afterwards. Calls for different instances may overlap.
	Bootstrap func(ctx context.Context, inst topology.Instance, socketDir string) error
}

// links are the names under which the program is found in DIR/bin.
var links = []string{"gpconfig", "gpstop", "gpstart", "gpstate"}

// cleanupTimeout bounds the removal of what a failed create made.
const cleanupTimeout = 60 * time.Second

// Create makes a cluster and starts it. Everything that can be checked is
// checked before anything is made: the directory, the ports, PostgreSQL's
// programs. When it fails, or ctx ends, nothing is left behind.
func Create(ctx context.Context, o Options) (*Cluster, error) {
	if err := checkOptions(&o); err != nil {
		return nil, err
	}
	o.Progress = serialized(o.Progress)
	bindir, err := instance.FindPostgres()
	if err != nil {
		return nil, err
	}
	acct, err := accountFor()
	if err != nil {
		return nil, err
	}
	pl, err := choosePlace(o.Dir, acct)
	if err != nil {
		return nil, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	if o.Binary == "" {
		if o.Binary, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	c := &Cluster{dir: pl.real, instances: layout(pl.real, hostname, o), host: o.Host}
	if err := checkPath(pl.real, c.instances); err != nil {
		return nil, err
	}
	if err := c.checkPorts(ctx); err != nil {
		return nil, err
	}

	m := &maker{Cluster: c, o: o, acct: acct, place: pl, bindir: bindir}
	err = pl.make(acct)
	if err == nil {
		err = m.build(ctx)
	}
	if err == nil {
		return c, nil
	}
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if cerr := m.cleanUp(cctx); cerr != nil {
		err = fmt.Errorf("%w\n(and not all could be removed again: %w)", err, cerr)
	}
	return nil, err
}

// maker makes one cluster.
type maker struct {
	*Cluster
	o      Options
	acct   account
	place  *place
	bindir string
}

// cleanUp ends every process of a cluster that did not come to be and removes
// its files.
func (m *maker) cleanUp(ctx context.Context) error {
	return errors.Join(m.kill(ctx), m.place.undo())
}

func (m *maker) build(ctx context.Context) error {
	if m.place.away() {
		m.o.Progress(fmt.Sprintf("%s is a link to %s: user %s, who runs the servers, may not enter its parent directory",
			m.place.want, m.place.real, systemUser))
	}
	if err := m.writeCommon(); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2) // initdb keeps a processor and the disk busy
	for _, inst := range m.instances {
		if inst.IsStandby() {
			continue
		}
		g.Go(func() error {
			if err := m.makeInstance(gctx, inst); err != nil {
				return fmt.Errorf("%s: %w", strings.TrimSpace(label(inst)), err)
			}
			m.o.Progress(label(inst) + ": made")
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return m.Start(ctx, StartOptions{Progress: m.o.Progress})
}

// writeCommon makes the files that are not of one instance.
func (m *maker) writeCommon() error {
	bin := filepath.Join(m.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	program, err := os.ReadFile(m.o.Binary)
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.binary(), program, 0o755); err != nil {
		return err
	}
	for _, name := range links {
		if err := os.Symlink("trunkline", filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	if err := os.Symlink(m.bindir, filepath.Join(m.dir, instance.PostgresLink)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(m.dir, "env.sh"), m.envScript(), 0o644); err != nil {
		return err
	}
	if err := topology.WriteFile(filepath.Join(m.dir, instance.ConfigurationFile), m.instances); err != nil {
		return err
	}
	for _, inst := range m.instances {
		if err := os.MkdirAll(filepath.Dir(inst.Datadir), 0o755); err != nil {
			return err
		}
	}
	// The modes again, whatever the umask was.
	for _, path := range []string{bin, m.binary(), filepath.Join(m.dir, "env.sh")} {
		fi, err := os.Stat(path)
		if err == nil {
			err = os.Chmod(path, fi.Mode()|0o444|(fi.Mode()&0o100)>>3|(fi.Mode()&0o100)>>6)
		}
		if err != nil {
			return err
		}
	}
	return m.acct.chown(m.dir)
}

// envScript is DIR/env.sh.
func (c *Cluster) envScript() []byte {
	var b bytes.Buffer
	b.WriteString("# The environment for psql and the utilities of this cluster; source it:\n#     . " + shellQuote(filepath.Join(c.dir, "env.sh")) + "\n")
	var names []string
	for _, kv := range c.variables() {
		fmt.Fprintf(&b, "%s=%s\n", kv[0], shellQuote(kv[1]))
		names = append(names, kv[0])
	}
	dirs := shellQuote(strings.Join(c.pathDirs(), ":") + ":")
	fmt.Fprintf(&b, "case $PATH in\n%s*) ;;\n*) PATH=%s$PATH ;;\nesac\n", dirs, dirs)
	fmt.Fprintf(&b, "export PATH %s\n", strings.Join(names, " "))
	return b.Bytes()
}

func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// makeInstance makes the coordinator or a primary. With the coordinator comes
// its standby, cloned while the server runs for the bootstrap.
func (m *maker) makeInstance(ctx context.Context, inst topology.Instance) error {
	dir := data(inst)
	if err := m.acct.initdb(ctx, m.bindir, inst.Datadir); err != nil {
		return err
	}
	f, err := os.OpenFile(dir.Conf(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(m.confLines(inst))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := m.write(inst, dir.InternalAutoConf(), internalAutoConf(inst)); err != nil {
		return err
	}
	if err := m.write(inst, dir.HBA(), m.hba(ctx, inst.Address)); err != nil {
		return err
	}
	if m.o.Bootstrap == nil && !inst.IsCoordinator() {
		return nil
	}
	return instance.RunPostgres(ctx, dir, func(ctx context.Context, socketDir string) error {
		if m.o.Bootstrap != nil {
			if err := m.o.Bootstrap(ctx, inst, socketDir); err != nil {
				return err
			}
		}
		if i := slices.IndexFunc(m.instances, topology.Instance.IsStandby); i >= 0 && inst.IsCoordinator() {
			if err := m.cloneStandby(ctx, inst, m.instances[i], socketDir); err != nil {
				return err
			}
			m.o.Progress(label(m.instances[i]) + ": made")
		}
		return nil
	})
}

// cloneStandby copies the coordinator's running server and makes a standby of
// the copy.
func (m *maker) cloneStandby(ctx context.Context, co, st topology.Instance, socketDir string) error {
	dir := data(st)
	err := m.acct.run(ctx, filepath.Join(m.bindir, "pg_basebackup"), "-h", socketDir, "-p", strconv.Itoa(co.Port),
		"-U", instance.Superuser, "-D", st.Datadir, "-X", "stream", "-C", "-S", instance.ReplicationSlot,
		"-c", "fast", "--no-sync", "--no-password")
	if err != nil {
		return err
	}
	for _, own := range []string{dir.Private(), dir.LogDir()} { // the coordinator's
		if err := os.RemoveAll(own); err != nil {
			return err
		}
	}
	if err := m.write(st, dir.InternalAutoConf(), internalAutoConf(st)); err != nil {
		return err
	}
	if err := m.write(st, filepath.Join(st.Datadir, "standby.signal"), ""); err != nil {
		return err
	}
	return guc.Set(dir.Conf(), "port", strconv.Itoa(st.Port))
}

func internalAutoConf(inst topology.Instance) string {
	return fmt.Sprintf("# Which instance this is. Do not edit.\ngp_dbid=%d\n", inst.Dbid)
}

// confLines is what is put at the end of the postgresql.conf that initdb made.
func (m *maker) confLines(inst topology.Instance) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n# Added when the cluster was made. Greenplum's parameters may be set in this\n"+
		"# file like PostgreSQL's own; see gpconfig.\nport=%d\ngp_contentid=%d\n", inst.Port, inst.Content)
	// Each session of the coordinator may have one connection to each segment,
	// and a transaction prepared there. The others are for readers; see
	// mpp/dispatch.
	connections := 750
	if inst.IsCoordinator() {
		connections = 250
	}
	fmt.Fprintf(&b, "max_connections=%d\nmax_prepared_transactions=250\n", connections)
	if inst.IsCoordinator() {
		// What motions bring has no statistics: guesses by the row count make
		// the planner compile queries for nothing.
		b.WriteString("jit=off\n")
		// A standby that stays away may not fill the disk.
		b.WriteString("max_slot_wal_keep_size=4GB\n")
	}
	for _, line := range m.o.Conf {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// hba is the user's pg_hba.conf of a new instance.
func (m *maker) hba(ctx context.Context, address string) string {
	var b strings.Builder
	b.WriteString(`# Who may connect to this instance's port, and how. The first line that
# matches decides. PostgreSQL's rules: TYPE DATABASE USER ADDRESS METHOD
#
# To ask a role for its password, put a line like this above the others:
#     host  all  some_role  127.0.0.1/32  scram-sha-256
# Connections from other machines need a line too (and an --address or
# listen_addresses they can reach):
#     host  all  all  192.168.0.0/16  scram-sha-256
# With ssl = on and the files of ssl_cert_file and ssl_key_file, hostssl in place
# of host lets in encrypted connections only.
# Then reload with gpstop -u.

local all      all                    trust
host  all      all      127.0.0.1/32  trust
host  all      all      ::1/128       trust
`)
	// Connections that come from the instance's own address are from this
	// machine.
	if ips, err := net.DefaultResolver.LookupIPAddr(ctx, address); err == nil {
		for _, ip := range ips {
			if ip.IP.IsLoopback() || ip.IP.IsUnspecified() {
				continue
			}
			bits := 128
			if ip.IP.To4() != nil {
				bits = 32
			}
			fmt.Fprintf(&b, "host  all      %s  %s/%d  trust\n", instance.Superuser, ip.IP, bits)
		}
	}
	return b.String()
}

// write makes a private file of an instance.
func (m *maker) write(inst topology.Instance, path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	if m.acct.cred == nil {
		return nil
	}
	return os.Chown(path, m.acct.uid, m.acct.gid)
}

// initdb makes a data directory.
func (a account) initdb(ctx context.Context, bindir, dir string) error {
	return a.run(ctx, filepath.Join(bindir, "initdb"), "-D", dir, "-U", instance.Superuser,
		"-E", "UTF8", "--locale="+a.locale(ctx), "--auth=trust", "--data-checksums", "--no-sync", "--no-instructions")
}

// locale is C.UTF-8 where the system has it: byte order for sorting, and
// Unicode's idea of letters.
func (a account) locale(ctx context.Context) string {
	if a.run(ctx, "/bin/sh", "-c", `locale -a | grep -qix 'c\.utf-\?8'`) == nil {
		return "C.UTF-8"
	}
	return "C"
}
