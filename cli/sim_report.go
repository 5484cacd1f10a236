package cli

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/trunkline-db/trunkline/sim"
)

var simTypeNames = map[sim.Type]string{
	sim.UDPIFC: "udpifc", sim.TCP: "tcp", sim.Proxy: "proxy", sim.HostProxy: "one proxy a host",
}

// simReport prints a result to read.
func simReport(w io.Writer, r *sim.Result) error {
	b := new(bytes.Buffer)
	simHead(b, r)
	simUsage(b, r, "In all", true, func(t *sim.TypeResult) sim.Usage { return t.All })
	if hosts := r.Types[0].Hosts; len(hosts) > 1 {
		for i, h := range hosts {
			title := strings.ToUpper(h.Where[:1]) + h.Where[1:]
			simUsage(b, r, title, false, func(t *sim.TypeResult) sim.Usage { return t.Hosts[i].Usage })
		}
	}
	simLimits(b, r)
	simNotes(b, r)
	_, err := w.Write(b.Bytes())
	return err
}

func simHead(w io.Writer, r *sim.Result) {
	c := r.Cluster
	where := "on one host"
	if c.Hosts > 1 {
		where = fmt.Sprintf("on %s hosts", thousands(int64(c.Hosts)))
	}
	of := map[sim.Kind]int64{}
	for _, m := range r.Motions {
		of[m.Kind]++
	}
	var motions []string
	for _, k := range []sim.Kind{sim.Gather, sim.Redistribute, sim.Broadcast} {
		if of[k] > 0 {
			motions = append(motions, count(of[k], string(k)+" motion"))
		}
	}
	fmt.Fprintf(w, "%s %s, %s running a query with %s.\n", count(int64(c.Segments), "segment"), where,
		count(int64(r.Sessions), "session"), strings.Join(motions, " and "))
	n := thousands(r.Types[0].All.Executors)
	if c.Engine == sim.Greenplum {
		fmt.Fprintf(w, "Executors as Greenplum's: a process for each slice, segment and session, and the QDs; %s.\n", n)
	} else {
		fmt.Fprintf(w, "Executors as the embedded cluster's (--engine trunkline): one for each segment and session, and the QDs; %s.\n", n)
	}
}

func simUsage(w io.Writer, r *sim.Result, title string, all bool, of func(*sim.TypeResult) sim.Usage) {
	head := []string{title, "TCP CONNECTIONS", "UDP SOCKETS", "LISTENING PORTS", "UNIX CONNECTIONS", "DESCRIPTORS", "PROXIES IDLE", "AT MOST"}
	if all {
		head = append(head, "SESSIONS THAT FIT")
	}
	rows := [][]string{head}
	for i := range r.Types {
		t := &r.Types[i]
		u := of(t)
		row := []string{"  " + simTypeNames[t.Type]}
		for _, n := range []int64{u.TCPConnections, u.UDPSockets, u.ListeningPorts, u.UnixConnections, u.Descriptors} {
			row = append(row, dash(n, thousands))
		}
		row = append(row, dash(u.ProxyIdle, byteSize), dash(u.ProxyMost, byteSize))
		if all {
			row = append(row, fits(t.Sessions))
		}
		rows = append(rows, row)
	}
	fmt.Fprintln(w)
	alignTable(w, rows, 1)
}

var simLimitNames = map[sim.LimitName]string{
	sim.LimitUDPPorts:     "UDP ports of an address",
	sim.LimitTCPPorts:     "TCP ports of an address",
	sim.LimitDescriptors:  "descriptors of a process",
	sim.LimitSelect:       "descriptors for select()",
	sim.LimitBacklog:      "backlog of a listener",
	sim.LimitProxyMemory:  "memory for windows",
	sim.LimitSmallWindows: "windows above 8 KiB",
	sim.LimitAddressList:  "length of the address list",
}

// simLimits prints for each type the limits that are met, and the hard one
// that would be met next.
func simLimits(w io.Writer, r *sim.Result) {
	rows := [][]string{{"Limits", "", "WHERE", "", "NEEDED", "ALLOWED", "SESSIONS THAT FIT"}}
	for _, t := range r.Types {
		name := "  " + simTypeNames[t.Type]
		next := false
		for _, l := range t.Limits {
			verdict := "ok"
			switch {
			case l.Met() && l.Hard:
				verdict = "FAILS"
			case l.Met():
				verdict = "exceeded"
			case !l.Hard || next:
				continue
			default:
				next = true
			}
			number := thousands
			if l.Name == sim.LimitProxyMemory {
				number = byteSize
			}
			rows = append(rows, []string{name, simLimitNames[l.Name], l.Where, verdict, number(l.Need), number(l.Allowed), fits(l.Sessions)})
			name = ""
		}
	}
	fmt.Fprintln(w)
	alignTable(w, rows, 4)
}

func simNotes(w io.Writer, r *sim.Result) {
	met := func(names ...sim.LimitName) bool {
		for _, t := range r.Types {
			for _, l := range t.Limits {
				if l.Met() && slices.Contains(names, l.Name) {
					return true
				}
			}
		}
		return false
	}
	var notes []string
	if met(sim.LimitUDPPorts, sim.LimitTCPPorts) {
		notes = append(notes, "Ports: net.ipv4.ip_local_port_range; an address of its own for each segment helps, with\ngp_interconnect_address_type = unicast. TCP connections dialled from a host take half of the range.")
	}
	if met(sim.LimitSelect) {
		notes = append(notes, "select() takes descriptors below 1024 only: in type tcp Greenplum's process of that slice has more.")
	}
	if met(sim.LimitBacklog) {
		notes = append(notes, "Backlog: connections beyond gp_interconnect_tcp_listener_backlog (and net.core.somaxconn) that come at\nonce are tried again after a second or more.")
	}
	if met(sim.LimitSmallWindows) {
		notes = append(notes, "Windows: logical connections opened later begin with 8 KiB, which is slow on a long link; raise\ntrunkline.proxy_memory.")
	}
	if met(sim.LimitAddressList) {
		notes = append(notes, "Address list: longer than the 16384 bytes Greenplum documents for gp_interconnect_proxy_addresses.")
	}
	if r.InVain > 0 {
		notes = append(notes, fmt.Sprintf("Mirrors and standby run no proxy, but are dialled: %s, by Greenplum's proxies each second, by\nTrunkline's every half minute.", count(r.InVain, "pair")))
	}
	if len(notes) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(notes, "\n"))
	}
}

// alignTable pads the columns: the first left of them to the right, the rest
// to the left.
func alignTable(w io.Writer, rows [][]string, left int) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				line.WriteString("  ")
			}
			if i < left {
				line.WriteString(cell + pad)
			} else {
				line.WriteString(pad + cell)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

func fits(sessions int64) string {
	switch sessions {
	case sim.NoLimit:
		return "over " + thousands(sim.MaxSessions)
	case 0:
		return "none"
	}
	return thousands(sessions)
}

func dash(n int64, format func(int64) string) string {
	if n == 0 {
		return "-"
	}
	return format(n)
}

// count is "1 segment" or "16 segments".
func count(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return thousands(n) + " " + what
}

// thousands prints n with a comma before every third digit.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// byteSize prints three digits and a binary unit.
func byteSize(n int64) string {
	v, unit := float64(n), 0
	for v >= 999.5 && unit < 4 {
		v /= 1024
		unit++
	}
	digits := 0
	if unit > 0 && v < 99.95 {
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + [...]string{"B", "KiB", "MiB", "GiB", "TiB"}[unit]
}
