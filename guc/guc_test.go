package guc

import (
	"errors"
	"strings"
	"testing"
)

func find(t testing.TB, name string) *Parameter {
	t.Helper()
	p, ok := Lookup(name)
	if !ok {
		t.Fatalf("no parameter %s", name)
	}
	return p
}

func TestTable(t *testing.T) {
	last := ""
	for _, p := range All() {
		if p.Name <= last || p.Name != strings.ToLower(p.Name) {
			t.Errorf("%s follows %s", p.Name, last)
		}
		last = p.Name
		if v, err := p.Parse(p.Default); err != nil || v != p.Default {
			t.Errorf("%s: default %q parses to %q, %v", p.Name, p.Default, v, err)
		}
		if p.Short == "" || p.Category == "" || !strings.HasSuffix(p.Short, ".") {
			t.Errorf("%s lacks a description or a category", p.Name)
		}
		if (p.Type == Enum) != (len(p.Enum) > 0) || (p.Type == Int || p.Type == Real) != (p.Max > p.Min) {
			t.Errorf("%s: type %v does not suit its range", p.Name, p.Type)
		}
	}
	if p := find(t, "GP_Interconnect_Type"); p.Default != "udpifc" || p.Context != Backend || p.Hidden {
		t.Errorf("%+v", p)
	}
	if p := find(t, ProxyAddresses); p.Context != Sighup || !p.Hidden || p.Type.String() != "string" {
		t.Errorf("%+v", p)
	}
	if _, ok := Lookup("gp_interconnect_hash_multiplier"); ok {
		t.Error("a parameter of Greenplum 5 is known")
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, value, canonical, show string }{
		{InterconnectType, "PROXY", "proxy", "proxy"},
		{SetupTimeout, "7200", "7200", "2h"},
		{SetupTimeout, " 90 min ", "5400", "90min"},
		{SetupTimeout, "1.5h", "5400", "90min"},
		{SetupTimeout, "1499ms", "1", "1s"},
		{SetupTimeout, "0x10", "16", "16s"},
		{SetupTimeout, "010", "8", "8s"},
		{SetupTimeout, "0", "0", "0"},
		{SetupTimeout, "-0", "0", "0"},
		{SetupTimeout, "2.5", "2", "2s"},
		{SetupTimeout, "1e3", "1000", "1000s"},
		{"gp_interconnect_default_rtt", "20", "20", "20ms"},
		{"gp_interconnect_default_rtt", "1s", "1000", "1s"},
		{"gp_interconnect_default_rtt", "1500us", "2", "2ms"},
		{"gp_udp_bufsize_k", "2MB", "2048", "2MB"},
		{"gp_udp_bufsize_k", "3000", "3000", "3000kB"},
		{MaxPacketSize, "8192", "8192", "8192"},
		{"gp_udpic_dropseg", "-2", "-2", "-2"},
		{"gp_motion_cost_per_row", "0.25", "0.25", "0.25"},
		{"gp_motion_cost_per_row", "1e-3", "0.001", "0.001"},
		{"gp_enable_direct_dispatch", "of", "off", "off"},
		{"gp_enable_direct_dispatch", "T", "on", "on"},
		{"gp_enable_direct_dispatch", "yes", "on", "on"},
		{"gp_enable_direct_dispatch", "1", "on", "on"},
		{ProxyAddresses, "", "", ""},
		{ProxyAddresses, "1:-1:h:35432", "1:-1:h:35432", "1:-1:h:35432"},
	} {
		p := find(t, c.name)
		got, err := p.Parse(c.value)
		if err != nil || got != c.canonical || p.Show(got) != c.show {
			t.Errorf("%s = %q: %q (%q), %v, want %q (%q)", c.name, c.value, got, p.Show(got), err, c.canonical, c.show)
		}
	}
}

// A parameter of PostgreSQL's own, as pg_settings describes it.
func TestParseForeign(t *testing.T) {
	buffers := &Parameter{Name: "shared_buffers", Type: Int, Unit: "8kB", Min: 16, Max: 1073741823}
	for value, want := range map[string]string{"128MB": "16384 128MB", "100": "100 800kB", "129kB": "16 128kB", "1GB": "131072 1GB"} {
		v, err := buffers.Parse(value)
		if err != nil || v+" "+buffers.Show(v) != want {
			t.Errorf("%s: %s %s, %v, want %s", value, v, buffers.Show(v), err, want)
		}
	}
	if _, err := buffers.Parse("1"); err == nil || err.Error() != `1 8kB is outside the valid range for parameter "shared_buffers" (16 .. 1073741823)` {
		t.Error(err)
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        Error
	}{
		{InterconnectType, "x", Error{Message: `invalid value for parameter "gp_interconnect_type": "x"`, Hint: "Available values: udpifc, tcp, proxy."}},
		{"gp_interconnect_queue_depth", "5000", Error{Message: `5000 is outside the valid range for parameter "gp_interconnect_queue_depth" (1 .. 4096)`}},
		{TransmitTimeout, "0", Error{Message: `0 s is outside the valid range for parameter "gp_interconnect_transmit_timeout" (1 .. 7200)`}},
		{TransmitTimeout, "3h", Error{Message: `10800 s is outside the valid range for parameter "gp_interconnect_transmit_timeout" (1 .. 7200)`}},
		{TransmitTimeout, "3 parsec", Error{Message: `invalid value for parameter "gp_interconnect_transmit_timeout": "3 parsec"`, Hint: `Valid units for this parameter are "us", "ms", "s", "min", "h", and "d".`}},
		{TransmitTimeout, "", Error{Message: `invalid value for parameter "gp_interconnect_transmit_timeout": ""`}},
		{TransmitTimeout, "1e99", Error{Message: `invalid value for parameter "gp_interconnect_transmit_timeout": "1e99"`, Hint: "Value exceeds integer range."}},
		{"gp_udp_bufsize_k", "1 mb", Error{Message: `invalid value for parameter "gp_udp_bufsize_k": "1 mb"`, Hint: `Valid units for this parameter are "B", "kB", "MB", "GB", and "TB".`}},
		{MaxPacketSize, "8kB", Error{Message: `invalid value for parameter "gp_max_packet_size": "8kB"`}},
		{"gp_enable_direct_dispatch", "o", Error{Message: `parameter "gp_enable_direct_dispatch" requires a Boolean value`}},
		{"gp_enable_direct_dispatch", "", Error{Message: `parameter "gp_enable_direct_dispatch" requires a Boolean value`}},
		{ProxyAddresses, "1:-1:h:35432,2:0::1", Error{
			Message: `invalid value for parameter "gp_interconnect_proxy_addresses": "1:-1:h:35432,2:0::1"`,
			Detail:  `entry 2, "2:0::1": the host is empty`}},
	} {
		c.want.Code = "22023"
		_, err := find(t, c.name).Parse(c.value)
		var got *Error
		if !errors.As(err, &got) || *got != c.want {
			t.Errorf("%s = %q: %+v\nwant %+v", c.name, c.value, got, c.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	for c, want := range map[Context]string{
		Internal:   `55P02 parameter "x" cannot be changed`,
		Postmaster: `55P02 parameter "x" cannot be changed without restarting the server`,
		Sighup:     `55P02 parameter "x" cannot be changed now`,
		Backend:    `55P02 parameter "x" cannot be set after connection start`,
		Suset:      `42501 permission denied to set parameter "x"`,
	} {
		if e := ErrCannotSet("x", c); e.Code+" "+e.Message != want {
			t.Errorf("%v: %s %s", c, e.Code, e.Message)
		}
	}
	if e := ErrUnknown("x"); e.Code != "42704" || e.Error() != `unrecognized configuration parameter "x"` {
		t.Errorf("%+v", e)
	}
}

// What Parse accepts it accepts again in canonical and shown form, as the same.
func FuzzParameterParse(f *testing.F) {
	for _, s := range []string{"", "5", "1.5h", "0x", "-", "on", "proxy", "1:-1:h:35432", ".5", "1e", "9223372036854775808", "08"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, p := range All() {
			v, err := p.Parse(s)
			if err != nil {
				var e *Error
				if !errors.As(err, &e) || e.Code != CodeInvalidValue {
					t.Fatalf("%s: %T %v", p.Name, err, err)
				}
				continue
			}
			for _, again := range []string{v, p.Show(v)} {
				if w, err := p.Parse(again); err != nil || w != v {
					t.Fatalf("%s: %q -> %q -> %q %v", p.Name, s, v, w, err)
				}
			}
		}
	})
}
