package clustertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/internal/testkit"
	"github.com/trunkline-db/trunkline/motion"
	icproxy "github.com/trunkline-db/trunkline/proxy"
	"github.com/trunkline-db/trunkline/proxy/logical"
)

// soakVar is the environment variable that says for how long TestFaults goes
// on, "10m" for example.
const soakVar = "TRUNKLINE_SOAK"

// The interconnect types, by the value of gp_interconnect_type.
var interconnectTypes = []string{"udpifc", "tcp", "proxy"}

// faultRun is what the sessions of TestFaults share.
type faultRun struct {
	w       *wideCluster
	limit   time.Duration // of one statement
	fixed   []known
	random  []known
	pads    map[string]bool // the rows "id|pad" of big
	stop    context.Context
	failing func(error) // told of what no fault excuses
	hung    atomic.Bool // a statement did not end
	stacks  func()      // logs what every process was doing then

	mu     sync.Mutex
	asked  map[string]map[string]int // by type and probe
	failed map[string]int            // by type
	errors map[string]*errorCount    // by normalised text
}

type errorCount struct {
	byType  map[string]int
	example string
}

// TestFaults asks questions whose answers are known from several sessions of
// each interconnect type, while the network between the instances loses,
// doubles, delays and reorders packets and is cut, and while proxies and
// executors' backends are killed. A statement ends in the right answer or in
// an error that says why, and afterwards everything works as before.
//
// TRUNKLINE_SOAK sets for how long, 6s unless it is set.
func TestFaults(t *testing.T) {
	duration := 6 * time.Second
	if s := os.Getenv(soakVar); s != "" {
		var err error
		if duration, err = time.ParseDuration(s); err != nil {
			t.Fatalf("%s: %v", soakVar, err)
		}
	}
	t.Parallel()
	const segments, sessions = 3, 3 // sessions of each type
	w := newWide(t, segments)
	r := &faultRun{
		w: w, limit: 2 * time.Minute, pads: map[string]bool{},
		asked: map[string]map[string]int{}, failed: map[string]int{}, errors: map[string]*errorCount{},
	}
	conn, err := w.connect(tcp)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range faultTables {
		testkit.Exec(t, conn, sql)
	}
	lookLarge(t, w.Cluster, "postgres")
	seed := uint64(time.Now().UnixNano())
	r.fixed = answers(t, conn, fixedQueries())
	if n := len(fixedQueries()); len(r.fixed) != n {
		t.Fatalf("%d of %d queries are answered without any fault", len(r.fixed), n)
	}
	r.random = answers(t, conn, randomQueries(t, conn, int(seed%1e9), 60))
	for _, row := range testkit.Query(t, conn, "select id, pad from big") {
		r.pads[row] = true
	}
	testkit.Close(conn)
	r.settle(t, "before any fault")
	before := r.resources(t, true)

	t.Logf("%v of faults, seed %d, %d random queries", duration, seed, len(r.random))
	stop, end := context.WithCancel(context.Background())
	defer end()
	r.stop = stop
	r.stacks = func() { w.Abort(t) }
	var failures atomic.Int32
	maker := newFaultMaker(t, w, seed)
	r.failing = func(err error) {
		t.Errorf("%s: %v\nlately: %s", time.Now().Format(clock), err, maker.lately())
		if errors.Is(err, errHung) {
			end()
		}
		if failures.Add(1) >= manyFailures {
			end()
		}
	}
	var wg sync.WaitGroup
	var all []*prober
	for i, typ := range interconnectTypes {
		for j := range sessions {
			p := &prober{
				faultRun: r, typ: typ, rng: rand.New(rand.NewPCG(seed, uint64(i*sessions+j+10))),
				table: fmt.Sprintf("own_%s_%d", typ, j), doubt: map[int]bool{}, stored: map[int]bool{},
			}
			if !p.open() {
				break
			}
			testkit.Exec(t, p.conn, "create table "+p.table+" (batch int, id int, pad text) distributed by (batch, id)")
			all = append(all, p)
		}
	}
	if t.Failed() {
		return
	}
	wg.Go(func() {
		r.last(stop, duration)
		end()
	})
	wg.Go(func() { maker.run(stop) })
	for _, p := range all {
		wg.Go(p.run)
	}
	wg.Wait()
	for _, err := range maker.errs {
		t.Error(err)
	}
	r.report(t, maker)
	defer r.closeAll(all)
	r.crashes(t)
	if r.hung.Load() {
		return // nothing that follows could be trusted
	}

	// The same sessions, and what they have written.
	start := time.Now()
	for _, p := range all {
		testkit.Eventually(t, calmAgain, func() error {
			if p.conn == nil && !p.open() {
				return errors.New("no session can be opened")
			}
			_, err := p.rows("rollback")
			if err == nil {
				err = p.look()
			}
			for _, q := range r.fixed[:5] {
				if err == nil {
					var got []string
					if got, err = p.rows(q.sql); err == nil {
						err = compare(q.sql, q.want, got, q.ordered)
					}
				}
			}
			if p.conn.IsClosed() {
				p.conn = nil
			}
			if wrong := (*wrongAnswer)(nil); errors.As(err, &wrong) {
				t.Fatalf("%s, after the faults: %v", p.typ, err)
			}
			if r.hung.Load() {
				t.Fatalf("%s, after the faults: %v", p.typ, err)
			}
			return err
		})
	}
	t.Logf("after the last fault everything was right within %v", time.Since(start).Round(time.Millisecond))
	r.settle(t, "after the faults")
	r.closeAll(all)
	limit := calmAgain
	early := duration > time.Minute
	if early {
		limit += 2 * logical.DefaultLimits.EarlyTimeout // one end, and then the other
	}
	testkit.Eventually(t, limit, func() error { return before.less(r.resources(t, early)) })
}

// manyFailures ends the test.
const manyFailures = 20

// calmAgain is how soon everything must work, and what sessions used must be
// free, after the last fault.
const calmAgain = 30 * time.Second

// closeAll ends the sessions.
func (r *faultRun) closeAll(all []*prober) {
	for _, p := range all {
		if p.conn != nil {
			testkit.Close(p.conn)
			p.conn = nil
		}
	}
}

// open opens the session with random settings of the interconnect.
func (p *prober) open() bool {
	pick := func(of ...string) string { return of[p.rng.IntN(len(of))] }
	options := []string{"gp_interconnect_type=" + p.typ}
	for _, o := range []string{
		"gp_max_packet_size=" + pick("8192", "1400", "512", "32000"),
		"gp_interconnect_queue_depth=" + pick("4", "1", "16", "64"),
		"gp_interconnect_snd_queue_depth=" + pick("2", "1", "16"),
		"gp_interconnect_fc_method=" + pick("loss", "capacity"),
		"gp_interconnect_cache_future_packets=" + pick("on", "off"),
		"gp_interconnect_full_crc=" + pick("on", "off"),
		"gp_interconnect_min_retries_before_timeout=" + pick("100", "3"),
		"gp_interconnect_transmit_timeout=" + pick("3600", "2", "5"),
		"gp_interconnect_setup_timeout=" + pick("7200", "2"),
	} {
		if p.rng.IntN(2) == 0 {
			options = append(options, o)
		}
	}
	conn, err := p.w.connect(options...)
	if err != nil {
		p.failing(fmt.Errorf("no session of type %s: %w", p.typ, err))
		return false
	}
	p.conn = conn
	return true
}

// run asks until it is time to stop.
func (p *prober) run() {
	for p.stop.Err() == nil {
		if p.conn != nil && p.rng.IntN(60) == 0 {
			testkit.Close(p.conn)
			p.conn = nil
		}
		if p.conn == nil && !p.open() {
			return
		}
		name, err := p.probe()
		p.count(name, err)
		if testkit.SQLState(err) == "57014" {
			err = fmt.Errorf("%w (cancel %v ago)", err, time.Since(p.last))
		}
		if why := excuse(err); why != nil {
			p.failing(fmt.Errorf("%s, %s: %w", p.typ, name, why))
		}
		if p.conn.IsClosed() {
			p.conn = nil
		}
	}
}

// named is what says who has failed, or where.
var named = regexp.MustCompile(`seg-?\d|dbid ?\d|contentId=-?\d|\d+\.\d+\.\d+\.\d+:\d+|coordinator`)

// excuse returns nil for no error and for one that a fault may cause and that
// says so.
func excuse(err error) error {
	var pe *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &pe):
		return err
	}
	text := testkit.ErrorText(err)
	complain := func(what string) error { return fmt.Errorf("%s: %w\n%s", what, err, text) }
	switch pe.Code {
	case motion.CodeInterconnect:
		if motion.Bare(pe.Message) {
			return complain("an error that does not say why")
		}
	case "25P02":
		// An earlier statement has failed, or the connection was lost since.
		if pe.Detail == "" {
			return complain("a transaction that has failed for no reason")
		}
	case "40001":
		// It has waited, and others have committed.
		if !strings.Contains(pe.Message, "snapshot on all segments") {
			return complain("a serialization failure that no fault explains")
		}
	case "57P01", "57P02", "57P03", "08006", "08007":
		// A backend was told to end, or its server starts again.
	default:
		return complain("an error that no fault explains")
	}
	if !named.MatchString(text) {
		return complain("an error that names nobody")
	}
	return nil
}

// variable is what of an error's text differs from one time to the next.
var variable = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`10\.77\.0\.\d+(:\d+)?`), "ADDR"},
	{regexp.MustCompile(`/[^ ]*/?\.s\.PGSQL[^ )]*`), "SOCKET"},
	{regexp.MustCompile(`con\d+,cmd\d+`), "conN,cmdN"},
	{regexp.MustCompile(`\d+`), "N"},
}

// enoughAsked is how much each type has to be asked for what is answered to tell
// something.
const enoughAsked = 40

// last waits for duration, and then until each type has been asked enough, on a busy
// machine up to ten times as long.
func (r *faultRun) last(stop context.Context, duration time.Duration) {
	limit := time.Now().Add(10 * duration)
	for wait := duration; time.Now().Before(limit); wait = 100 * time.Millisecond {
		select {
		case <-time.After(wait):
		case <-stop.Done():
			return
		}
		if r.askedEnough() {
			return
		}
	}
}

func (r *faultRun) askedEnough() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, typ := range interconnectTypes {
		n := 0
		for _, k := range r.asked[typ] {
			n += k
		}
		if n < enoughAsked {
			return false
		}
	}
	return true
}

func (r *faultRun) count(name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	typ := name[:strings.IndexByte(name, '/')]
	if r.asked[typ] == nil {
		r.asked[typ] = map[string]int{}
	}
	r.asked[typ][name]++
	if err == nil {
		return
	}
	r.failed[typ]++
	text := strings.Join(strings.FieldsFunc(testkit.ErrorText(err), func(c rune) bool { return c == '\n' }), " | ")
	key := text
	for _, v := range variable {
		key = v.re.ReplaceAllString(key, v.with)
	}
	e := r.errors[key]
	if e == nil {
		e = &errorCount{byType: map[string]int{}, example: text}
		r.errors[key] = e
	}
	e.byType[typ]++
}

func (p *prober) count(name string, err error) { p.faultRun.count(p.typ+"/"+name, err) }

// report prints what was asked, what failed and how, and what the faults were.
func (r *faultRun) report(t *testing.T, f *faultMaker) {
	var b strings.Builder
	for _, typ := range interconnectTypes {
		n := 0
		var by []string
		for _, name := range slices.Sorted(maps.Keys(r.asked[typ])) {
			n += r.asked[typ][name]
			by = append(by, fmt.Sprintf("%s %d", name[len(typ)+1:], r.asked[typ][name]))
		}
		fmt.Fprintf(&b, "%s: %d asked, %d failed (%s)\n", typ, n, r.failed[typ], strings.Join(by, ", "))
		if ok := n - r.failed[typ]; ok < 5 || r.failed[typ] > 2*ok {
			t.Errorf("%s: only %d of %d were answered", typ, ok, n)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.counts)) {
		fmt.Fprintf(&b, "%s: %d times\n", name, f.counts[name])
	}
	fmt.Fprintf(&b, "network: %+v\n", r.w.net.Total())
	total := func(e *errorCount) (n int) {
		for _, k := range e.byType {
			n += k
		}
		return n
	}
	for _, e := range slices.SortedFunc(maps.Values(r.errors), func(a, b *errorCount) int { return total(b) - total(a) }) {
		for _, typ := range interconnectTypes {
			fmt.Fprintf(&b, "%6d %s", e.byType[typ], typ)
		}
		fmt.Fprintf(&b, "  %s\n", e.example)
	}
	t.Logf("\n%s", b.String())
}

// crashes looks in the logs for what the programs say when they should never
// have said anything, the race detector's words among them
// (GOFLAGS=-race).
func (r *faultRun) crashes(t *testing.T) {
	t.Helper()
	for _, i := range r.w.Instances(t) {
		for _, name := range []string{"instance.log", "proxy.log"} {
			b, err := os.ReadFile(filepath.Join(i.Datadir, "log", name))
			if err != nil {
				t.Error(err)
				continue
			}
			if at := crashed.FindIndex(b); at != nil {
				t.Errorf("%s of dbid %d:\n%s", name, i.Dbid, b[at[0]:min(len(b), at[0]+8<<10)])
			}
		}
	}
}

var crashed = regexp.MustCompile(`(?m)^(panic|fatal error|WARNING: DATA RACE)\b`)

// settle waits until all children of all instances run, the proxies are
// connected, and a query on all segments is answered in each type.
func (r *faultRun) settle(t *testing.T, when string) {
	t.Helper()
	list := r.w.Instances(t)
	testkit.Eventually(t, calmAgain, func() error {
		for _, i := range list {
			st, err := instance.ReadStatus(context.Background(), datadir.Dir(i.Datadir))
			if err != nil {
				return fmt.Errorf("%s: dbid %d: %w", when, i.Dbid, err)
			}
			if st.State != instance.Ready || st.Postgres.State != instance.Ready || st.Proxy.State != instance.Ready {
				return fmt.Errorf("%s: dbid %d is not ready: %+v", when, i.Dbid, st)
			}
			ps, err := icproxy.ReadStatus(context.Background(), datadir.Dir(i.Datadir).ProxySocket())
			if err != nil || !ps.Healthy() {
				return fmt.Errorf("%s: the proxy of dbid %d: %v, %+v", when, i.Dbid, err, ps)
			}
		}
		for _, typ := range interconnectTypes {
			conn, err := r.w.connect("gp_interconnect_type=" + typ)
			if err != nil {
				return err
			}
			rows, err := testkit.TryQuery(conn, "select count(*) from big")
			testkit.Close(conn)
			if err != nil || rows[0] != fmt.Sprint(bigRows) {
				return fmt.Errorf("%s: %s: %v, %v", when, typ, rows, err)
			}
		}
		return nil
	})
}

// resources is what the cluster holds, sockets of its hosts included.
func (r *faultRun) resources(t *testing.T, early bool) usage {
	t.Helper()
	u := resources(t, r.w.Cluster, early)
	for _, i := range r.w.Instances(t) {
		for _, proto := range []string{"tcp", "udp"} {
			u[fmt.Sprintf("%s sockets of dbid %d", proto, i.Dbid)] = r.sockets(t, int(i.Content)+1, proto)
		}
	}
	return u
}

// sockets counts a host's sockets that processes have. Those that have been
// closed and linger in the kernel belong to none.
func (r *faultRun) sockets(t *testing.T, host int, proto string) (n int) {
	t.Helper()
	const inode = 9
	err := r.w.net.Host(host).Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/" + proto)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > inode && f[0] != "sl" && f[inode] != "0" {
				n++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
