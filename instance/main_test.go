package instance

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/topology"
)

func TestMain(m *testing.M) {
	if os.Getenv(parentVar) != "" {
		beParent()
		return
	}
	goleak.VerifyTestMain(m)
}

// tempDir makes an instance's data directory, without a database, in a
// cluster directory whose list names the instances given (dbid 1 is its own).
func tempDir(t *testing.T, list ...topology.Instance) datadir.Dir {
	t.Helper()
	root, err := os.MkdirTemp("", "tl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	dir := datadir.Dir(root + "/coordinator/gpseg-1")
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		list = []topology.Instance{{Dbid: 1, Content: -1, Role: 'p', Port: 15432}}
	}
	for k := range list {
		i := &list[k]
		i.PreferredRole, i.Mode, i.Status = i.Role, 'n', 'u'
		i.Hostname, i.Address = "mdw", "127.0.0.1"
		if i.Datadir == "" {
			i.Datadir = string(dir)
		}
	}
	if err := topology.WriteFile(root+"/"+ConfigurationFile, list); err != nil {
		t.Fatal(err)
	}
	write(t, dir.InternalAutoConf(), "gp_dbid=1\n")
	write(t, dir.Conf(), "port=15432\ngp_contentid=-1\n")
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
