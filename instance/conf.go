package instance

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/guc"
)

const (
	// gucPrefix is put before Greenplum's parameters, which PostgreSQL then
	// keeps for its sessions as parameters of an unknown extension.
	gucPrefix = "trunkline."
	// serialName is a parameter that is different in every generated file, so
	// that one can see which file a server has read.
	serialName = gucPrefix + "configuration_serial"
	// walReceiverName is how the standby shows in pg_stat_replication, as in
	// Greenplum.
	walReceiverName = "gp_walreceiver"
	// ReplicationSlot is the slot that keeps WAL for the standby, as in
	// Greenplum.
	ReplicationSlot = "internal_wal_replication_slot"
	// minPrepared is the least max_prepared_transactions: every distributed
	// transaction in flight needs one on each segment.
	minPrepared = 100
)

// userConf is what the user's postgresql.conf says.
type userConf struct {
	pg []guc.Setting     // PostgreSQL's parameters, in the file's order
	gp map[string]string // every parameter of guc's table, as it is in force
}

// readUserConf reads the user's file. warn, if not nil, is told of Greenplum
// parameters with bad values, which get their defaults. As for PostgreSQL
// itself, a file with a syntax error is not used at all.
func readUserConf(dir datadir.Dir, warn func(error)) (*userConf, error) {
	conf, err := guc.ReadConf(dir.Conf())
	if err != nil {
		return nil, err
	}
	pg, gp, errs := guc.Split(conf)
	if warn != nil {
		for _, err := range errs {
			warn(fmt.Errorf("%s: %w", dir.Conf(), err))
		}
	}
	return &userConf{pg, gp}, nil
}

// Generate writes the configuration that the instance's PostgreSQL server is
// started with, trunkline/postgresql.conf and trunkline/pg_hba.conf, from the
// user's postgresql.conf. A Greenplum parameter with a bad value gets its
// default; warn, if not nil, is told.
func Generate(dir datadir.Dir, warn func(error)) error {
	f, err := readFacts(dir)
	if err != nil {
		return err
	}
	uc, err := readUserConf(dir, warn)
	if err != nil {
		return err
	}
	return generate(f, uc, "", 0)
}

// innerHBA lets everybody in who can reach the socket, which lies in a folder
// that only the instance's owner may enter.
const innerHBA = `# Written by Trunkline at each start and reload; changes here are lost.
# The rules for clients are in ../pg_hba.conf.
local all         all trust
local replication all trust
`

// generate writes both files. sync is synchronous_standby_names of the
// coordinator, serial the value of serialName.
func generate(f *facts, uc *userConf, sync string, serial int64) error {
	if err := makePrivate(f.dir); err != nil {
		return err
	}
	if err := writeFile(f.dir.PGHBA(), []byte(innerHBA), 0o600, f.dir); err != nil {
		return err
	}
	return writeFile(f.dir.PGConf(), []byte(renderConf(f, uc, sync, serial)), 0o600, f.dir)
}

// renderConf returns the text of the generated file.
func renderConf(f *facts, uc *userConf, sync string, serial int64) string {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%s = %s\n", name, guc.Quote(value)) }

	fmt.Fprintf(&b, "# Written by Trunkline from %s at each start and reload; changes here are lost.\n\n", f.dir.Conf())
	prepared := minPrepared
	for _, s := range uc.pg {
		name := s.Name
		switch {
		case name == "max_prepared_transactions":
			if n, err := strconv.Atoi(s.Value); err == nil {
				prepared = max(minPrepared, n)
			}
			continue
		case strings.HasPrefix(name, "gp_"):
			// Greenplum's, but not one that means something here. PostgreSQL
			// would not start with it.
			name = gucPrefix + name
		}
		line(name, s.Value)
	}
	b.WriteString("\n# Greenplum's parameters\n")
	for _, name := range slices.Sorted(maps.Keys(uc.gp)) {
		line(gucPrefix+name, uc.gp[name])
	}
	b.WriteString("\n# What Trunkline needs\n")
	line("listen_addresses", "")
	line("unix_socket_directories", quoteListItem(f.dir.SocketDir()))
	line("unix_socket_permissions", "0700")
	line("hba_file", f.dir.PGHBA())
	line("port", strconv.Itoa(f.self.Port))
	line("max_prepared_transactions", strconv.Itoa(prepared))
	switch {
	case f.self.Content >= 0:
		// As in Greenplum, triggers and foreign keys do nothing on segments.
		line("session_replication_role", "replica")
	case f.standby:
		if c, ok := f.coordinator(); ok {
			line("primary_conninfo", primaryConninfo(datadir.Dir(c.Datadir), c.Port))
			line("primary_slot_name", ReplicationSlot)
		}
		line("hot_standby", "on")
		// Often, so that the coordinator notices a standby that hangs; and
		// back soon after a restart of the coordinator.
		line("wal_receiver_status_interval", "1s")
		line("wal_retrieve_retry_interval", "500ms")
	}
	if f.self.Content == -1 {
		line("synchronous_standby_names", sync)
		line("wal_sender_timeout", "10s")
		line("wal_receiver_timeout", "10s")
	}
	b.WriteString(serialLine(strconv.FormatInt(serial, 10)))
	return b.String()
}

func serialLine(serial string) string {
	return serialName + " = " + guc.Quote(serial) + "\n"
}

// primaryConninfo is how the standby reaches the coordinator's server: over
// its unix socket, so that replication takes no TCP connection.
func primaryConninfo(coordinator datadir.Dir, port int) string {
	return "host=" + quoteConninfo(coordinator.SocketDir()) + " port=" + strconv.Itoa(port) +
		" user=" + Superuser + " application_name=" + walReceiverName + " sslmode=disable gssencmode=disable"
}

// quoteConninfo quotes a value for a libpq connection string.
func quoteConninfo(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// PostgresLink is the name of the link in the cluster directory to the folder
// of PostgreSQL's programs that the cluster was made with.
const PostgresLink = "pgsql"

// clusterPostgres returns the folder of PostgreSQL's programs for a cluster.
func clusterPostgres(clusterDir string) (string, error) {
	if dir, err := filepath.EvalSymlinks(filepath.Join(clusterDir, PostgresLink)); err == nil && hasPrograms(dir) {
		return dir, nil
	}
	return FindPostgres()
}
