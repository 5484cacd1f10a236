package clustertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// TestWalkthrough types the commands of the published walkthrough, as they are
// printed there, on a new cluster.
func TestWalkthrough(t *testing.T) {
	t.Parallel()
	c := testkit.New(t, testkit.Options{Segments: 3, Standby: true})
	function, err := os.ReadFile(filepath.Join("..", "..", "scripts", "my_setup_ic_proxy.sql"))
	if err != nil {
		t.Fatal(err)
	}
	// see runs a command line with input and expects texts in the output.
	see := func(input, line string, want ...string) {
		t.Helper()
		out, err := c.ShellInput(input, line)
		if err != nil {
			t.Fatalf("$ %s\n%s%v", line, out, err)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("$ %s\n%s\nhas no %q", line, out, w)
			}
		}
	}
	see("", "createdb mytest")
	see(`create extension plpython3u;
		create table sales (id int, qty int) distributed by (id);
		insert into sales select i, i % 100 from generate_series(1, 1000000) i;`,
		"psql -v ON_ERROR_STOP=1 -d mytest", "CREATE EXTENSION", "CREATE TABLE", "INSERT 0 1000000")
	see("show gp_interconnect_type;", "psql -At -d mytest", "udpifc\n")
	see(string(function), "psql -v ON_ERROR_STOP=1 -d mytest", "CREATE FUNCTION")

	var rows []string // as psql prints them
	for _, e := range c.Addresses(t) {
		rows = append(rows, fmt.Sprintf("(%d,%d,%s,%d)", e.Dbid, e.Content, e.Host, e.Port))
	}
	see("select my_setup_ic_proxy(-1000, '');\n",
		`PGOPTIONS="-c gp_interconnect_type=udpifc" psql -d mytest`,
		append(rows, "if the settings are correct, re-run with 'update proxy' to apply.")...)
	out := c.MustShell(t, "gpconfig -s gp_interconnect_proxy_addresses --file")
	if strings.Contains(out, "127.0.0.1") {
		t.Errorf("showing the addresses has set them:\n%s", out)
	}
	see("select my_setup_ic_proxy(-1000, 'update proxy');\n",
		`PGOPTIONS="-c gp_interconnect_type=udpifc" psql -d mytest`,
		append(rows, "the settings are applied, please reload with 'gpstop -u' to take effect.")...)
	list := c.Addresses(t).String()
	see("", "gpconfig -s gp_interconnect_proxy_addresses --file", list)

	// The alternative of the page, with this cluster's addresses.
	see("", "gpconfig -r gp_interconnect_proxy_addresses")
	see("", fmt.Sprintf(`gpconfig --skipvalidation -c gp_interconnect_proxy_addresses -v "'%s'"`, list), "completed successfully")
	for _, i := range c.Instances(t) {
		conf, err := os.ReadFile(filepath.Join(i.Datadir, "postgresql.conf"))
		if err != nil {
			t.Fatal(err)
		}
		if want := "gp_interconnect_proxy_addresses='" + list + "'"; !strings.Contains(strings.ReplaceAll(string(conf), " ", ""), want) {
			t.Errorf("dbid %d: postgresql.conf has no line %s", i.Dbid, want)
		}
	}
	see("", "gpstop -u")
	c.WaitProxies(t)
	see("show gp_interconnect_proxy_addresses;", "psql -At -d mytest", list)

	see("SELECT gp_segment_id, COUNT(*) FROM sales GROUP BY gp_segment_id ;\nshow gp_interconnect_type;\n",
		`PGOPTIONS="-c gp_interconnect_type=proxy" psql -d mytest`,
		"gp_segment_id | count", "0 | 333167", "1 | 332791", "2 | 334042", "(3 rows)", " proxy\n")

	// A session keeps its type when the system's is changed.
	old := c.Connect(t, "mytest")
	see("", "gpconfig -c  gp_interconnect_type -v proxy",
		"completed successfully with parameters '-c gp_interconnect_type -v proxy'")
	see("", "gpstop -u", "Signalling all postmaster processes to reload")
	testkit.Eventually(t, limit, func() error {
		if out := strings.TrimSpace(c.MustShell(t, "psql -At -d mytest -c 'show gp_interconnect_type'")); out != "proxy" {
			return fmt.Errorf("a new session has %s", out)
		}
		return nil
	})
	if got := testkit.Value(t, old, "show gp_interconnect_type"); got != "udpifc" {
		t.Errorf("the session that was open now has %s", got)
	}
	see("", "gpconfig -s gp_interconnect_type", "Values on all segments are consistent", "proxy")
	conn := c.Connect(t, "mytest")
	if got := testkit.Value(t, conn, "select count(*) from sales where qty = 7"); got != "10000" {
		t.Errorf("in proxy mode: %s", got)
	}

	// All of it stands after a restart. A smart stop waits for the last session.
	testkit.Close(old)
	testkit.Close(conn)
	see("", "gpstop -a -r")
	c.Whole(t, limit*10)
	c.WaitProxies(t)
	see("select count(*) from sales; show gp_interconnect_type;", "psql -At -d mytest", "1000000\nproxy\n")
}
