package tpch

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	pg "github.com/pganalyze/pg_query_go/v6"
)

const testScale = 0.01

func generator(t testing.TB, scale float64) *Generator {
	t.Helper()
	g, err := New(scale)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// read returns what a reader of some units gives.
func read(t testing.TB, g *Generator, table Table, from, to int64) []byte {
	t.Helper()
	b, err := io.ReadAll(g.NewReader(table, from, to))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// row has the fields of a row by the names of the columns.
type row map[string]string

func (r row) int(t testing.TB, column string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(r[column], 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", column, err)
	}
	return n
}

// cents reads a number that has two decimals.
func (r row) cents(t testing.TB, column string) int64 {
	t.Helper()
	whole, part, _ := strings.Cut(r[column], ".")
	n, err := strconv.ParseInt(whole+part, 10, 64)
	if err != nil || len(part) != 2 {
		t.Fatalf("%s is %q", column, r[column])
	}
	return n
}

func (r row) date(t testing.TB, column string) time.Time {
	t.Helper()
	d, err := time.Parse(time.DateOnly, r[column])
	if err != nil {
		t.Fatal(err)
	}
	return d
}

type column struct {
	name, typ string
	length    int // of a text, at most
}

var columnLine = regexp.MustCompile(`(?m)^\t(\w+) (\w+)(?:\((\d+)[,\d]*\))?`)

func columns(table Table) (list []column) {
	for _, m := range columnLine.FindAllStringSubmatch(definitions[table].columns, -1) {
		n, _ := strconv.Atoi(m[3])
		list = append(list, column{m[1], m[2], n})
	}
	return list
}

// rows returns all rows of a table.
func rows(t testing.TB, g *Generator, table Table) (list []row) {
	t.Helper()
	cols := columns(table)
	for line := range strings.Lines(string(read(t, g, table, 0, g.Units(table)))) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != len(cols) {
			t.Fatalf("%v has %d columns; a row is %q", table, len(cols), line)
		}
		r := row{}
		for i, c := range cols {
			r[c.name] = fields[i]
		}
		list = append(list, r)
	}
	return list
}

func TestRows(t *testing.T) {
	for _, tc := range []struct {
		scale float64
		want  map[Table]int64
	}{
		{0.01, map[Table]int64{Region: 5, Nation: 25, Supplier: 100, Customer: 1500, Part: 2000, PartSupp: 8000, Orders: 15_000}},
		{0.1, map[Table]int64{Region: 5, Nation: 25, Supplier: 1000, Customer: 15_000, Part: 20_000, PartSupp: 80_000, Orders: 150_000}},
		{1, map[Table]int64{Region: 5, Nation: 25, Supplier: 10_000, Customer: 150_000, Part: 200_000, PartSupp: 800_000, Orders: 1_500_000}},
		{3, map[Table]int64{Supplier: 30_000, Orders: 4_500_000}},
	} {
		g := generator(t, tc.scale)
		for table, want := range tc.want {
			if n := g.Rows(table); n != want {
				t.Errorf("scale %v: %v has %d rows, want %d", tc.scale, table, n, want)
			}
		}
		if perOrder := float64(g.Rows(LineItem)) / float64(g.Rows(Orders)); math.Abs(perOrder-4) > 0.05 {
			t.Errorf("scale %v: %v lines an order", tc.scale, perOrder)
		}
	}
	g := generator(t, testScale)
	for _, table := range Tables {
		if made := int64(len(rows(t, g, table))); made != g.Rows(table) {
			t.Errorf("%v: %d rows made, %d announced", table, made, g.Rows(table))
		}
	}
	for _, scale := range []float64{0, -1, 0.0009, 10_001, math.NaN(), math.Inf(1)} {
		if _, err := New(scale); err == nil {
			t.Errorf("scale %v is taken", scale)
		}
	}
}

// TestRanges makes tables in parts, by several goroutines, and wants the same
// bytes.
func TestRanges(t *testing.T) {
	whole := generator(t, testScale)
	for _, table := range Tables {
		want := read(t, whole, table, 0, whole.Units(table))
		g := generator(t, testScale)
		rng := rand.New(rand.NewPCG(1, uint64(table)))
		cuts := []int64{0, g.Units(table)}
		for range 20 {
			cuts = append(cuts, rng.Int64N(g.Units(table)+1))
		}
		slices.Sort(cuts)
		parts := make([][]byte, len(cuts)-1)
		var workers sync.WaitGroup
		for i := range parts {
			workers.Go(func() { parts[i] = read(t, g, table, cuts[i], cuts[i+1]) })
		}
		workers.Wait()
		if !bytes.Equal(bytes.Join(parts, nil), want) {
			t.Errorf("%v is not the same in parts", table)
		}
	}
	r := whole.NewReader(LineItem, 7, 30)
	if err := iotest.TestReader(r, read(t, whole, LineItem, 7, 30)); err != nil {
		t.Error(err)
	}
	if want := int64(bytes.Count(read(t, whole, LineItem, 7, 30), []byte("\n"))); r.Rows() != want {
		t.Errorf("the reader counts %d rows, want %d", r.Rows(), want)
	}
}

// TestColumns holds every value against its column's type.
func TestColumns(t *testing.T) {
	g := generator(t, testScale)
	bounds := map[string][2]int{ // lengths by the specification
		"r_comment": {31, 115}, "n_comment": {31, 114}, "s_comment": {25, 100}, "c_comment": {29, 116}, "p_comment": {5, 22},
		"ps_comment": {49, 198}, "o_comment": {19, 78}, "l_comment": {10, 43}, "s_address": {10, 40}, "c_address": {10, 40},
	}
	for _, table := range Tables {
		list := rows(t, g, table)
		for _, c := range columns(table) {
			least, most := math.MaxInt, 0
			for _, r := range list {
				v := r[c.name]
				least, most = min(least, len(v)), max(most, len(v))
				switch c.typ {
				case "char", "varchar":
					if len(v) == 0 || len(v) > c.length || strings.ContainsAny(v, "\\\t") {
						t.Fatalf("%s %s(%d) is %q", c.name, c.typ, c.length, v)
					}
				case "integer", "bigint":
					r.int(t, c.name)
				case "numeric":
					if strings.Contains(v, ".") || c.name != "l_quantity" {
						r.cents(t, c.name)
					}
				case "date":
					r.date(t, c.name)
				default:
					t.Fatalf("%s has type %s", c.name, c.typ)
				}
			}
			if b, ok := bounds[c.name]; ok {
				if least < b[0] || most > b[1] || len(list) > 1000 && (least != b[0] || most != b[1]) {
					t.Errorf("%s has %d to %d bytes, want %v", c.name, least, most, b)
				}
				delete(bounds, c.name)
			}
		}
	}
	if len(bounds) > 0 {
		t.Errorf("no such columns: %v", bounds)
	}
}

// share wants about so many of the rows to satisfy a condition, by five
// standard deviations.
func share(t *testing.T, what string, n, of int, want float64) {
	t.Helper()
	got := float64(n) / float64(of)
	if math.Abs(got-want) > 5*math.Sqrt(want*(1-want)/float64(of)) {
		t.Errorf("%s: %.4f of %d, want %.4f", what, got, of, want)
	}
}

// TestUniform looks at columns each value of which is as likely.
func TestUniform(t *testing.T) {
	g := generator(t, testScale)
	made := map[Table][]row{}
	for _, tc := range []struct {
		table  Table
		column string
		values int
	}{
		{Customer, "c_nationkey", 25},
		{Customer, "c_mktsegment", 5},
		{Part, "p_mfgr", 5},
		{Part, "p_brand", 25},
		{Part, "p_type", 150},
		{Part, "p_size", 50},
		{Part, "p_container", 40},
		{Orders, "o_custkey", 1000},
		{Orders, "o_orderdate", 2406},
		{Orders, "o_orderpriority", 5},
		{Orders, "o_clerk", 10},
		{Orders, "o_shippriority", 1},
		{LineItem, "l_partkey", 2000},
		{LineItem, "l_suppkey", 100},
		{LineItem, "l_quantity", 50},
		{LineItem, "l_discount", 11},
		{LineItem, "l_tax", 9},
		{LineItem, "l_shipinstruct", 4},
		{LineItem, "l_shipmode", 7},
	} {
		count := map[string]int{}
		if made[tc.table] == nil {
			made[tc.table] = rows(t, g, tc.table)
		}
		list := made[tc.table]
		for _, r := range list {
			count[r[tc.column]]++
		}
		// Of few rows some values may be missing.
		if n := len(count); n > tc.values || float64(n) < 0.99*float64(tc.values) {
			t.Errorf("%s has %d values, want %d", tc.column, n, tc.values)
		}
		// The sum of squares has the chi-squared distribution.
		expected, chi := float64(len(list))/float64(tc.values), 0.0
		for _, n := range count {
			chi += (float64(n) - expected) * (float64(n) - expected) / expected
		}
		free := float64(tc.values - 1)
		if chi > free+6*math.Sqrt(2*free) {
			t.Errorf("%s is not uniform: chi-squared is %.0f of %.0f", tc.column, chi, free)
		}
	}
}

// TestNumbers looks at least, most and mean.
func TestNumbers(t *testing.T) {
	g := generator(t, testScale)
	for _, tc := range []struct {
		table       Table
		column      string
		least, most int64 // cents, or the number itself
		value       func(row, testing.TB, string) int64
	}{
		{Supplier, "s_acctbal", -99_999, 999_999, row.centsOf},
		{Customer, "c_acctbal", -99_999, 999_999, row.centsOf},
		{PartSupp, "ps_availqty", 1, 9999, row.intOf},
		{PartSupp, "ps_supplycost", 100, 100_000, row.centsOf},
	} {
		list := rows(t, g, tc.table)
		least, most, sum := int64(math.MaxInt64), int64(math.MinInt64), 0.0
		for _, r := range list {
			v := tc.value(r, t, tc.column)
			least, most, sum = min(least, v), max(most, v), sum+float64(v)
		}
		width, n := float64(tc.most-tc.least), float64(len(list))
		if least < tc.least || most > tc.most || float64(most-least) < width*(1-20/n) {
			t.Errorf("%s goes from %d to %d, want %d to %d", tc.column, least, most, tc.least, tc.most)
		}
		if mean, want := sum/n, float64(tc.least+tc.most)/2; math.Abs(mean-want) > 5*width/math.Sqrt(12*n) {
			t.Errorf("%s is %.0f in the mean, want %.0f", tc.column, mean, want)
		}
	}
}

func (r row) centsOf(t testing.TB, column string) int64 { return r.cents(t, column) }
func (r row) intOf(t testing.TB, column string) int64   { return r.int(t, column) }

func TestNations(t *testing.T) {
	g := generator(t, testScale)
	perRegion := map[string]int{}
	for i, r := range rows(t, g, Nation) {
		if r["n_nationkey"] != strconv.Itoa(i) {
			t.Errorf("nation %d has key %s", i, r["n_nationkey"])
		}
		perRegion[r["n_regionkey"]]++
	}
	for _, r := range rows(t, g, Region) {
		if perRegion[r["r_regionkey"]] != 5 {
			t.Errorf("%s has %d nations", r["r_name"], perRegion[r["r_regionkey"]])
		}
	}
}

var phoneNumber = regexp.MustCompile(`^(\d\d)-[1-9]\d\d-[1-9]\d\d-[1-9]\d\d\d$`)

func TestCustomersAndSuppliers(t *testing.T) {
	g := generator(t, testScale)
	for _, tc := range []struct {
		table        Table
		prefix, name string
	}{{Customer, "c_", "Customer#"}, {Supplier, "s_", "Supplier#"}} {
		key := strings.ToLower(tc.name[:4]) + "key"
		for i, r := range rows(t, g, tc.table) {
			if want := strconv.Itoa(i + 1); r[tc.prefix+key] != want {
				t.Fatalf("row %d has key %q", i, r[tc.prefix+key])
			}
			if want := fmt.Sprintf("%s%09d", tc.name, i+1); r[tc.prefix+"name"] != want {
				t.Fatalf("row %d has the name %q", i, r[tc.prefix+"name"])
			}
			m := phoneNumber.FindStringSubmatch(r[tc.prefix+"phone"])
			if m == nil || m[1] != fmt.Sprint(10+r.int(t, tc.prefix+"nationkey")) {
				t.Fatalf("nation %s has the number %s", r[tc.prefix+"nationkey"], r[tc.prefix+"phone"])
			}
		}
	}
	if s := string(padded(nil, 1_234_567_890)); s != "1234567890" {
		t.Errorf("a key of ten digits is %s", s)
	}
	if len(alphabet) != 64 {
		t.Errorf("addresses are of %d characters", len(alphabet))
	}
}

// TestRemarks looks for the suppliers that customers have an opinion of.
func TestRemarks(t *testing.T) {
	g := generator(t, 3)
	opinion := regexp.MustCompile(`Customer.*(Complaints|Recommends)`)
	count := map[string]int{}
	ends := map[bool]int{} // whether it is at the end
	for i, r := range rows(t, g, Supplier) {
		if m := opinion.FindStringSubmatch(r["s_comment"]); m != nil {
			count[fmt.Sprint(i/10_000, m[1])]++
			ends[strings.HasSuffix(r["s_comment"], m[1])]++
		}
	}
	for block := range 3 {
		for _, word := range []string{"Complaints", "Recommends"} {
			if n := count[fmt.Sprint(block, word)]; n != 5 {
				t.Errorf("%s: %d of suppliers %d to %d, want 5", word, n, 10_000*block+1, 10_000*(block+1))
			}
		}
	}
	if ends[false] == 0 {
		t.Error("the remark is always at the end")
	}
}

func TestParts(t *testing.T) {
	g := generator(t, testScale)
	if len(colours) != 92 || len(types) != 150 || len(containers) != 40 {
		t.Errorf("%d colours, %d types, %d containers", len(colours), len(types), len(containers))
	}
	known, used := map[string]bool{}, map[string]int{}
	for _, c := range colours {
		known[c] = true
	}
	for i, r := range rows(t, g, Part) {
		key := int64(i + 1)
		if r.int(t, "p_partkey") != key {
			t.Fatalf("row %d has key %s", i, r["p_partkey"])
		}
		names := strings.Split(r["p_name"], " ")
		if len(names) != 5 {
			t.Fatalf("name %q", r["p_name"])
		}
		for k, n := range names {
			if !known[n] || slices.Contains(names[:k], n) {
				t.Fatalf("name %q", r["p_name"])
			}
			used[n]++
		}
		if want := 90_000 + key/10%20_001 + 100*(key%1000); r.cents(t, "p_retailprice") != want {
			t.Fatalf("part %d costs %s", key, r["p_retailprice"])
		}
		if maker, brand := r["p_mfgr"], r["p_brand"]; maker[:13] != "Manufacturer#" || brand[:7] != "Brand#"+maker[13:] {
			t.Fatalf("%s makes %s", maker, brand)
		}
	}
	for _, c := range colours {
		share(t, c, used[c], 2000, 5.0/92)
	}
	// By the specification's formula, worked out by hand for a scale of 1.
	one := generator(t, 1)
	for part, want := range map[int64][4]int64{1: {2, 2502, 5002, 7502}, 10_001: {2, 2503, 5004, 7505}, 200_000: {1, 2520, 5039, 7558}} {
		for k := range int64(4) {
			if got := one.supplierOf(part, k); got != want[k] {
				t.Errorf("supplier %d of part %d is %d, want %d", k, part, got, want[k])
			}
		}
	}
}

// TestSuppliersOfParts has four different suppliers for each part, whatever the
// scale.
func TestSuppliersOfParts(t *testing.T) {
	for scale := MinScale; scale < 0.05; scale += 0.0007 {
		g := generator(t, scale)
		if want := math.Round(10_000 * scale); float64(g.Rows(Supplier)) > want+10 || scale > 0.024 && float64(g.Rows(Supplier)) != want {
			t.Errorf("scale %v has %d suppliers", scale, g.Rows(Supplier))
		}
		for part := int64(1); part <= g.parts; part++ {
			var of [4]int64
			for k := range of {
				of[k] = g.supplierOf(part, int64(k))
				if of[k] < 1 || of[k] > g.suppliers || slices.Contains(of[:k], of[k]) {
					t.Fatalf("scale %v: part %d has suppliers %v of %d", scale, part, of[:k+1], g.suppliers)
				}
			}
		}
	}
	g := generator(t, testScale)
	for i, r := range rows(t, g, PartSupp) {
		if part := int64(i/4 + 1); r.int(t, "ps_partkey") != part || r.int(t, "ps_suppkey") != g.supplierOf(part, int64(i%4)) {
			t.Fatalf("row %d is %v", i, r)
		}
	}
}

// TestOrders holds orders and their lines against each other.
func TestOrders(t *testing.T) {
	g := generator(t, testScale)
	lines := map[string][]row{}
	for _, r := range rows(t, g, LineItem) {
		lines[r["l_orderkey"]] = append(lines[r["l_orderkey"]], r)
	}
	status, flags, perOrder := map[string]int{}, map[string]int{}, map[int]int{}
	var orders, all int
	first, last := lastDate, firstDate
	within := func(what string, from, to time.Time, least, most int) {
		t.Helper()
		if d := int(to.Sub(from).Hours()) / 24; d < least || d > most {
			t.Fatalf("%s after %d days", what, d)
		}
	}
	for i, o := range rows(t, g, Orders) {
		orders++
		key := o.int(t, "o_orderkey")
		if (key-1)%32 >= 8 || (key-1)/32*8+(key-1)%32 != int64(i) {
			t.Fatalf("order %d has key %d", i, key)
		}
		if c := o.int(t, "o_custkey"); c < 1 || c > g.customers || c%3 == 0 {
			t.Fatalf("customer %d orders", c)
		}
		date := o.date(t, "o_orderdate")
		if date.Before(first) {
			first = date
		}
		if date.After(last) {
			last = date
		}
		total, states := int64(0), map[string]bool{}
		perOrder[len(lines[o["o_orderkey"]])]++
		for k, l := range lines[o["o_orderkey"]] {
			all++
			if l["l_linenumber"] != strconv.Itoa(k+1) {
				t.Fatalf("line %d is %v", k, l)
			}
			part, quantity := l.int(t, "l_partkey"), l.int(t, "l_quantity")
			price := l.cents(t, "l_extendedprice")
			if price != quantity*retailPrice(part) || quantity < 1 || quantity > 50 {
				t.Fatalf("%d of part %d cost %s", quantity, part, l["l_extendedprice"])
			}
			if s := l.int(t, "l_suppkey"); !slices.ContainsFunc([]int64{0, 1, 2, 3}, func(k int64) bool { return g.supplierOf(part, k) == s }) {
				t.Fatalf("supplier %d does not sell part %d", s, part)
			}
			total += price * (100 - l.cents(t, "l_discount")) * (100 + l.cents(t, "l_tax"))
			ship, commit, receipt := l.date(t, "l_shipdate"), l.date(t, "l_commitdate"), l.date(t, "l_receiptdate")
			within("shipped", date, ship, 1, 121)
			within("promised", date, commit, 30, 90)
			within("received", ship, receipt, 1, 30)
			state, flag := "F", "N"
			if ship.After(currentDate) {
				state = "O"
			}
			if !receipt.After(currentDate) {
				flag = l["l_returnflag"]
				if flag != "R" && flag != "A" {
					t.Fatalf("flag %q", flag)
				}
			}
			if l["l_linestatus"] != state || l["l_returnflag"] != flag {
				t.Fatalf("%v: want %s, %s", l, state, flag)
			}
			states[state] = true
			flags[flag+state]++
		}
		if want := int64(math.Round(float64(total) / 1e4)); o.cents(t, "o_totalprice") != want {
			t.Fatalf("order %d costs %s, want %d cents", key, o["o_totalprice"], want)
		}
		want := "P"
		if len(states) == 1 {
			for s := range states {
				want = s
			}
		}
		if o["o_orderstatus"] != want {
			t.Fatalf("order %d has status %s, want %s", key, o["o_orderstatus"], want)
		}
		status[want]++
		if o["o_shippriority"] != "0" || o["o_clerk"][:6] != "Clerk#" || len(o["o_clerk"]) != 15 {
			t.Fatalf("%v", o)
		}
	}
	if all != int(g.Rows(LineItem)) {
		t.Errorf("%d lines belong to orders, %d are there", all, g.Rows(LineItem))
	}
	for n := range 7 {
		share(t, fmt.Sprintf("%d lines", n+1), perOrder[n+1], orders, 1.0/7)
	}
	if first.Sub(firstDate) > 3*24*time.Hour || lastDate.AddDate(0, 0, -151).Sub(last) > 3*24*time.Hour || last.After(lastDate.AddDate(0, 0, -151)) {
		t.Errorf("orders are from %v to %v", first, last)
	}
	// The shares of the benchmark's own data of scale 1.
	share(t, "status F", status["F"], orders, 0.4863)
	share(t, "status O", status["O"], orders, 0.4880)
	share(t, "status P", status["P"], orders, 0.0257)
	// Lines of an order are not independent: a wider margin, by fewer.
	share(t, "lines A F", flags["AF"]/4, all/4, 0.2464)
	share(t, "lines R F", flags["RF"]/4, all/4, 0.2464)
	share(t, "lines N F", flags["NF"]/4, all/4, 0.0065)
	share(t, "lines N O", flags["NO"]/4, all/4, 0.5007)
}

func TestText(t *testing.T) {
	words := map[string]bool{"the": true}
	for _, list := range [][]string{nouns, verbs, adjectives, adverbs, prepositions, auxiliaries} {
		for _, phrase := range list {
			for _, w := range strings.Fields(phrase) {
				words[w] = true
			}
		}
	}
	text := string(pool())
	if len(text) != poolSize {
		t.Errorf("the text has %d bytes", len(text))
	}
	fields := strings.Fields(text)
	unknown := 0
	for _, w := range fields {
		if !words[strings.TrimRight(w, ".,;:?!-")] {
			unknown++
		}
	}
	if unknown > 1 { // the last may be cut
		t.Errorf("%d unknown words", unknown)
	}
	sentence := regexp.MustCompile(`^[a-zA-Z][a-zA-Z, -]+[a-z]$`)
	for i, s := range regexp.MustCompile(`(\.|;|:|\?|!|--) `).Split(text[:1<<16], -1) {
		if i < 1000 && !sentence.MatchString(s) {
			t.Fatalf("sentence %d is %q", i, s)
		}
	}
	// Query 13 leaves out about one order in a hundred.
	g := generator(t, 0.02)
	special, n := regexp.MustCompile(`special.*requests`), 0
	for _, r := range rows(t, g, Orders) {
		if special.MatchString(r["o_comment"]) {
			n++
		}
	}
	if part := float64(n) / float64(g.Rows(Orders)); part < 0.007 || part > 0.015 {
		t.Errorf("%.4f of the orders are special requests", part)
	}
}

func TestSchema(t *testing.T) {
	for _, table := range Tables {
		for _, sql := range []string{table.Create(false), table.PrimaryKey()} {
			if _, err := pg.Parse(sql); err != nil {
				t.Errorf("%s: %v", sql, err)
			}
		}
		with := table.Create(true)
		clause, ok := strings.CutPrefix(with, table.Create(false)+" distributed ")
		if !ok || clause != "replicated" && !strings.HasPrefix(clause, "by (") {
			t.Errorf("%s", with)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	g := generator(b, 1)
	for _, table := range Tables[Supplier:] {
		b.Run(table.String(), func(b *testing.B) {
			var buf []byte
			made, size := 0, 0
			unit, units := int64(0), g.Units(table)
			for b.Loop() {
				var n int
				buf, n = g.Append(buf[:0], table, unit)
				made, size = made+n, size+len(buf)
				if unit++; unit == units {
					unit = 0
				}
			}
			b.ReportMetric(float64(made)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(size)/1e6/b.Elapsed().Seconds(), "MB/s")
		})
	}
}
