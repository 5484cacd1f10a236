package instance

import (
	"os"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/topology"
)

// effective reads a generated file as PostgreSQL would: the last line of a
// name counts.
func effective(t *testing.T, dir datadir.Dir) map[string]string {
	t.Helper()
	conf, err := guc.ReadConf(dir.PGConf())
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, s := range conf.Settings {
		m[s.Name] = s.Value
	}
	return m
}

func expect(t *testing.T, got map[string]string, want map[string]string) {
	t.Helper()
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Errorf("%s = %q (set: %v), want %q", k, g, ok, v)
		}
	}
}

func TestGenerate(t *testing.T) {
	dir := tempDir(t)
	write(t, dir.Conf(), `
port=15432
gp_contentid=-1
listen_addresses = '*'                  # the instance's affair, not the server's
shared_buffers = 64MB
search_path = '"a b", ''c\\'''
max_prepared_transactions = 7
synchronous_standby_names = 'mine'
gp_interconnect_type=proxy
gp_interconnect_queue_depth=100000
gp_vmem_protect_limit = 8192
`)
	var warned []string
	if err := Generate(dir, func(err error) { warned = append(warned, err.Error()) }); err != nil {
		t.Fatal(err)
	}
	got := effective(t, dir)
	expect(t, got, map[string]string{
		"port":                           "15432",
		"listen_addresses":               "",
		"shared_buffers":                 "64MB",
		"search_path":                    `"a b", 'c\'`,
		"max_prepared_transactions":      "100",
		"synchronous_standby_names":      "",
		"trunkline.gp_interconnect_type": "proxy",
		"hba_file":                       dir.PGHBA(),
		"unix_socket_directories":        `"` + dir.SocketDir() + `"`,
		// Out of range: the default, and a warning.
		"trunkline.gp_interconnect_queue_depth": "4",
		// Greenplum's, but unknown here: PostgreSQL must not see it bare.
		"trunkline.gp_vmem_protect_limit": "8192",
	})
	if len(warned) != 1 || !strings.Contains(warned[0], "gp_interconnect_queue_depth") {
		t.Errorf("warnings: %q, want one about gp_interconnect_queue_depth", warned)
	}
	for name := range got {
		if strings.HasPrefix(name, "gp_") {
			t.Errorf("%s is given to PostgreSQL, which does not know it", name)
		}
	}
	for _, p := range guc.All() {
		if _, ok := got["trunkline."+p.Name]; !ok {
			t.Errorf("trunkline.%s is not set", p.Name)
		}
	}
	if _, ok := got["session_replication_role"]; ok {
		t.Error("session_replication_role is set on the coordinator")
	}
	if fi, err := os.Stat(dir.Private()); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("private folder: %v, %v, want mode 0700", fi.Mode(), err)
	}
}

func TestGenerateSegment(t *testing.T) {
	dir := tempDir(t, topology.Instance{Dbid: 1, Content: 0, Role: 'p', Port: 6001})
	write(t, dir.Conf(), "max_prepared_transactions=400\n")
	if err := Generate(dir, nil); err != nil {
		t.Fatal(err)
	}
	got := effective(t, dir)
	expect(t, got, map[string]string{
		"session_replication_role": "replica", "max_prepared_transactions": "400", "port": "6001",
	})
	if _, ok := got["synchronous_standby_names"]; ok {
		t.Error("synchronous_standby_names is set on a segment")
	}
}

func TestGenerateStandby(t *testing.T) {
	dir := tempDir(t, topology.Instance{Dbid: 1, Content: -1, Role: 'm', Port: 6002},
		topology.Instance{Dbid: 2, Content: -1, Role: 'p', Port: 6000, Datadir: "/srv/it's/gpseg-1"})
	write(t, dir.Conf(), "\n")
	write(t, string(dir)+"/standby.signal", "")
	if err := Generate(dir, nil); err != nil {
		t.Fatal(err)
	}
	expect(t, effective(t, dir), map[string]string{
		"primary_conninfo": `host='/srv/it\'s/gpseg-1/trunkline' port=6000 user=gpadmin` +
			` application_name=gp_walreceiver sslmode=disable gssencmode=disable`,
		"primary_slot_name": ReplicationSlot, "hot_standby": "on",
	})
}

// A file PostgreSQL would not read is not half used.
func TestGenerateSyntaxError(t *testing.T) {
	dir := tempDir(t)
	write(t, dir.Conf(), "work_mem = 'open\n")
	if err := Generate(dir, nil); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("Generate of a broken file: %v, want an error that names line 1", err)
	}
	if _, err := os.Stat(dir.PGConf()); err == nil {
		t.Error("a configuration was written all the same")
	}
}

func TestReadFactsErrors(t *testing.T) {
	dir := tempDir(t)
	write(t, dir.InternalAutoConf(), "gp_dbid=9\n")
	if _, err := readFacts(dir); err == nil || !strings.Contains(err.Error(), "no row for dbid 9") {
		t.Errorf("unknown dbid: %v", err)
	}
	alone := datadir.Dir(t.TempDir() + "/alone")
	if err := os.Mkdir(string(alone), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, alone.InternalAutoConf(), "gp_dbid=1\n")
	if _, err := readFacts(alone); err == nil || !strings.Contains(err.Error(), "not part of a cluster") {
		t.Errorf("directory outside of a cluster: %v", err)
	}
}
