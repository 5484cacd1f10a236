package proxy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/topology"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDataDir(t *testing.T) {
	dir := datadir.Dir(t.TempDir())
	src := DataDir(dir)
	if _, err := src.Facts(); err == nil {
		t.Error("an empty directory has facts")
	}
	write(t, dir.InternalAutoConf(), "gp_dbid=3\n")
	conf := "# a cluster\nport=35001\ngp_contentid = 1\nwal_level = replica\ngp_max_packet_size=1400\n"
	list := "gp_interconnect_proxy_addresses='1:-1:h0:35432,3:1:h1:35001'\n"
	own := "trunkline.proxy_addresses='1:-1:h9:1,3:1:h8:2'\n"
	h0 := topology.AddressList{{Dbid: 1, Content: -1, Host: "h0", Port: 35432}, {Dbid: 3, Content: 1, Host: "h1", Port: 35001}}
	h9 := topology.AddressList{{Dbid: 1, Content: -1, Host: "h9", Port: 1}, {Dbid: 3, Content: 1, Host: "h8", Port: 2}}
	for _, c := range []struct {
		name, conf string
		want       topology.AddressList
	}{
		{"Greenplum's list", conf + list, h0},
		{"it goes first", conf + own + list, h0},
		{"ours when that is empty", conf + own + "gp_interconnect_proxy_addresses=''\n", h9},
		{"none", conf, nil},
	} {
		write(t, dir.Conf(), c.conf)
		got, err := src.Facts()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		want := Facts{Dbid: 3, Content: 1, Addresses: c.want, MaxPacket: 1400}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", c.name, d)
		}
	}
	write(t, dir.Conf(), conf+"gp_interconnect_proxy_addresses='1:-1:h0'\n")
	if f, err := src.Facts(); err != nil || f.AddressError == nil || !strings.Contains(f.AddressError.Error(), "gp_interconnect_proxy_addresses") {
		t.Errorf("a bad list: %+v, %v", f, err)
	}

	if _, _, err := src.Postmaster(); err == nil {
		t.Error("a server is running without postmaster.pid")
	}
	write(t, dir.PostmasterPid(), "4711\n/data\n1700000000\n35001\n/tmp\n*\n 1 2\nready\n")
	if port, pid, err := src.Postmaster(); port != 35001 || pid != 4711 || err != nil {
		t.Errorf("postmaster %d %d %v", port, pid, err)
	}
}

func TestConfigFor(t *testing.T) {
	if _, err := ConfigFor(datadir.Dir(filepath.Join(t.TempDir(), "none"))); err == nil {
		t.Error("a directory that does not exist was taken")
	}
	dir := datadir.Dir(t.TempDir())
	cfg, err := ConfigFor(dir)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Dialect != DialectAuto || !cfg.AckRefused || cfg.StatusSocket != dir.ProxySocket() {
		t.Errorf("beside Greenplum: %+v", cfg)
	}
	if fi, err := os.Stat(dir.Private()); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("private folder: %v %v", fi, err)
	}
	write(t, dir.InstanceLock(), "1\n")
	if cfg, err = ConfigFor(dir); err != nil || cfg.Dialect != DialectMagic36 || cfg.AckRefused {
		t.Errorf("in an embedded cluster: %+v, %v", cfg, err)
	}
}

func TestParseDialect(t *testing.T) {
	for _, d := range []Dialect{DialectAuto, DialectMagic36, DialectPlain32} {
		if got, err := ParseDialect(d.String()); got != d || err != nil {
			t.Errorf("%v: %v, %v", d, got, err)
		}
	}
	if _, err := ParseDialect("latin"); err == nil {
		t.Error("latin was taken")
	}
}
