package clustertest

import (
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// rawClient speaks the protocol's bytes, in any encoding.
type rawClient struct {
	t        *testing.T
	fe       *pgproto3.Frontend
	encoding []string // client_encoding, as it was reported
}

func dialRaw(t *testing.T, network, addr, db string, params map[string]string) *rawClient {
	t.Helper()
	conn, err := net.DialTimeout(network, addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	c := &rawClient{t: t, fe: pgproto3.NewFrontend(conn, conn)}
	all := map[string]string{"user": "gpadmin", "database": db}
	for k, v := range params {
		all[k] = v
	}
	c.send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: all})
	return c
}

func (c *rawClient) send(msgs ...pgproto3.FrontendMessage) {
	c.t.Helper()
	for _, m := range msgs {
		c.fe.Send(m)
	}
	if err := c.fe.Flush(); err != nil {
		c.t.Fatal(err)
	}
}

// answer is what the server says up to ReadyForQuery, one message a line,
// without what tells the servers apart. Lines of a COPY are sorted.
func (c *rawClient) answer() []string {
	c.t.Helper()
	var said, copied, heard []string
	add := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	for {
		m, err := c.fe.Receive()
		if err != nil {
			c.t.Fatalf("after %q: %v", said, err)
		}
		switch m := m.(type) {
		case *pgproto3.AuthenticationOk, *pgproto3.BackendKeyData:
		case *pgproto3.ParameterStatus:
			if m.Name == "client_encoding" {
				c.encoding = append(c.encoding, m.Value)
			}
		case *pgproto3.RowDescription:
			for _, f := range m.Fields {
				add("column %q type %d format %d", f.Name, f.DataTypeOID, f.Format)
			}
		case *pgproto3.DataRow:
			add("row %q", m.Values)
		case *pgproto3.CopyData:
			copied = append(copied, fmt.Sprintf("copied %q", m.Data))
		case *pgproto3.CopyDone:
			slices.Sort(copied)
			said, copied = append(said, copied...), nil
		case *pgproto3.CommandComplete:
			add("complete %s", m.CommandTag)
		case *pgproto3.ErrorResponse:
			add("%s %s %q detail %q position %d where %q", m.Severity, m.Code, m.Message, m.Detail, m.Position, m.Where)
			if m.Severity == "FATAL" {
				return said
			}
		case *pgproto3.NoticeResponse:
			if !strings.Contains(m.Message, "DISTRIBUTED BY") {
				add("%s %s %q", m.Severity, m.Code, m.Message)
			}
		case *pgproto3.NotificationResponse:
			heard = append(heard, fmt.Sprintf("heard %q: %q", m.Channel, m.Payload)) // at any time
		case *pgproto3.CopyInResponse:
			return append(said, "COPY in")
		case *pgproto3.ReadyForQuery:
			return append(append(said, heard...), "ready "+string(m.TxStatus))
		default:
			add("%T", m)
		}
	}
}

// TestClientEncodings has the same conversation in several encodings with the
// cluster and with a PostgreSQL server: they answer the same bytes.
func TestClientEncodings(t *testing.T) {
	c := beside(t)
	plain := c.PlainPostgres(t)
	plainAddr := fmt.Sprintf("%s/.s.PGSQL.%d", plain.Config().Host, plain.Config().Port)
	db := c.Database(t)
	for _, e := range []struct {
		name, table, a, b string
		broken            string // bytes that are no text
	}{
		{"LATIN1", "été", "déjà", "ñ", "\xe9"},
		{"WIN1252", "été", "déjà", "œ", "\x81"},
		{"KOI8R", "стол", "год", "щ", "\xe9"},
		{"SJIS", "表", "日本ソ", "能", "\x81\x20"}, // of some the last byte is a backslash
		{"EUC_JP", "表", "日本ソ", "ｱ", "\x8e\x20"},
		{"BIG5", "許", "功蓋", "中", "\xff\xff"},
		{"GB18030", "表", "日本", "\U0001f600", "\x81\x30\x20"},
	} {
		t.Run(e.name, func(t *testing.T) {
			in := func(text string) string {
				t.Helper()
				text = strings.NewReplacer("TABLE", e.table, "AAA", e.a, "BBB", e.b).Replace(text)
				h := testkit.Value(t, plain, fmt.Sprintf("select encode(convert_to('%s', '%s'), 'hex')", strings.ReplaceAll(text, "'", "''"), e.name))
				b, err := hex.DecodeString(h)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			params := map[string]string{"client_encoding": strings.ToLower(e.name)}
			servers := []*rawClient{dialRaw(t, "tcp", fmt.Sprintf("127.0.0.1:%d", c.Port), db, params), dialRaw(t, "unix", plainAddr, plain.Config().Database, params)}
			compare := func(what string) {
				t.Helper()
				got, want := servers[0].answer(), servers[1].answer()
				if !slices.Equal(got, want) {
					t.Errorf("%s: the cluster answers\n%s\nPostgreSQL\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
			talk := func(what string, msgs ...pgproto3.FrontendMessage) {
				t.Helper()
				for _, s := range servers {
					s.send(msgs...)
				}
				compare(what)
			}
			query := func(sql string) { t.Helper(); talk(sql, &pgproto3.Query{String: in(sql)}) }
			compare("start")
			query("create table \"TABLE\" (k int, v text, j jsonb, a text[])")
			query("insert into \"TABLE\" values (1, 'AAA', '{\"BBB\": 1}', '{AAA,NULL,BBB}'), (2, 'BBB', null, null)")
			query("select k, v as \"BBB\", j, a from \"TABLE\" order by k")
			query("select v from \"TABLE\" where k = 1")
			query("select count(*), max(v) from \"TABLE\" where v = 'AAA'")
			query("show client_encoding")
			query("update \"TABLE\" set v = v || 'BBB' where k = 2 returning v")
			query("select 'AAA', 1/0")
			query("select \"BBB\" from \"TABLE\"")
			query("select 'AAA'::int")
			query("do $$ begin raise notice 'AAA'; end $$")
			query("listen \"TABLE\"; notify \"TABLE\", 'BBB'")
			query("prepare \"BBB\" as select v from \"TABLE\" where v = $1; execute \"BBB\" ('AAA'); deallocate \"BBB\"")

			// The extended protocol, text and binary.
			for _, format := range []int16{0, 1} {
				talk("extended", &pgproto3.Parse{Name: in("BBB"), Query: in("select k, v, j, a, v::name, row(k, v, 'BBB'::text) as \"BBB\" from \"TABLE\" where v = $1 or v = 'BBB' order by k"), ParameterOIDs: []uint32{25}},
					&pgproto3.Describe{ObjectType: 'S', Name: in("BBB")},
					&pgproto3.Bind{PreparedStatement: in("BBB"), DestinationPortal: in("AAA"), Parameters: [][]byte{[]byte(in("AAA"))},
						ParameterFormatCodes: []int16{format}, ResultFormatCodes: []int16{format}},
					&pgproto3.Describe{ObjectType: 'P', Name: in("AAA")}, &pgproto3.Execute{Portal: in("AAA")},
					&pgproto3.Close{ObjectType: 'S', Name: in("BBB")}, &pgproto3.Sync{})
				talk("binary on the coordinator only", &pgproto3.Parse{Query: in("select $1::text, 'AAA'::name, array['BBB', $1]")},
					&pgproto3.Bind{Parameters: [][]byte{[]byte(in("AAA"))}, ParameterFormatCodes: []int16{format}, ResultFormatCodes: []int16{format}},
					&pgproto3.Execute{}, &pgproto3.Sync{})
			}
			// COPY, every byte in a message of its own.
			for _, sql := range []string{"copy \"TABLE\" (k, v) from stdin", "copy \"TABLE\" (k, v) from stdin (format csv, delimiter E'\\t', header)"} {
				query(sql)
				for _, s := range servers {
					for _, b := range []byte(in("3\tAAA\n4\tBBB\n5\tAAABBB\n")) {
						s.send(&pgproto3.CopyData{Data: []byte{b}})
					}
					s.send(&pgproto3.CopyDone{})
				}
				compare(sql)
			}
			query("copy \"TABLE\" (k, v) from stdin (encoding 'UTF8')")
			talk("COPY of UTF-8", &pgproto3.CopyData{Data: []byte("6\t" + e.a + "\n")}, &pgproto3.CopyDone{})
			query("copy \"TABLE\" (k, v) from stdin")
			talk("COPY that fails", &pgproto3.CopyFail{Message: in("AAA")})
			query("copy \"TABLE\" (k, v) to stdout")
			query("copy \"TABLE\" to stdout (format csv)")
			query("copy (select v from \"TABLE\" order by k, v) to stdout")
			query("copy \"TABLE\" (v) to stdout (encoding 'UTF8')")
			query("select k, v from \"TABLE\" order by k, v")

			// What cannot be said, and what is no text.
			const no = "U&'\\0E01'" // THAI CHARACTER KO KAI
			if e.name != "GB18030" {
				query("select v || " + no + " from \"TABLE\" where k = 1")
				query("select " + no)
				query("select 1, " + no + "; select 2")
				query("do $$ begin raise exception '%', " + no + "; end $$")
				talk("extended", &pgproto3.Parse{Query: in("select " + no)}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
				query("begin; select " + no)
				query("select 1")
				query("rollback")
			}
			talk("nonsense", &pgproto3.Query{String: "select '" + e.broken + "'"})
			talk("nonsense", &pgproto3.Parse{Query: "select '" + e.broken + "'"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
			talk("nonsense", &pgproto3.Parse{Query: "select $1::text"}, &pgproto3.Bind{Parameters: [][]byte{[]byte(e.broken)}}, &pgproto3.Execute{}, &pgproto3.Sync{})

			// How long it lasts.
			for _, sql := range []string{
				"set client_encoding to 'utf8'; show client_encoding", "select v from \"TABLE\" where k = 6", "reset client_encoding",
				"begin; set names 'utf-8'", "select v from \"TABLE\" where k = 6", "rollback", "select v from \"TABLE\" where k = 6",
				"begin; set local client_encoding = 'UTF8'; savepoint s", "set client_encoding to sql_ascii", "show client_encoding",
				"rollback to s", "show client_encoding", "commit", "show client_encoding",
				"set client_encoding to 'utf8'", "set client_encoding to default", "show client_encoding", "set local client_encoding to utf8",
				"set client_encoding to 'xyz'", "set client_encoding to mule_internal", "show client_encoding",
				"set client_encoding to utf8", "discard all", "show client_encoding", "set client_encoding to utf8", "reset all", "show client_encoding",
			} {
				if !strings.Contains(sql, "TABLE") {
					query(sql)
					continue
				}
				h := strings.Replace(strings.Replace(sql, "TABLE", e.table, 1), "\"", "U&\"", 1)
				h = strings.Replace(h, e.table, escaped(e.table), 1)
				talk(sql, &pgproto3.Query{String: h})
			}
			query("drop table \"TABLE\"")
			if got, want := servers[0].encoding, servers[1].encoding; !slices.Equal(got, want) {
				t.Errorf("client_encoding was reported as %v, by PostgreSQL as %v", got, want)
			}
		})
	}
}

// escaped is text as U&"" has it.
func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		fmt.Fprintf(&b, "\\+%06x", r)
	}
	return b.String()
}

// TestWhereClientEncodingComesFrom sets it in every way there is before a
// session begins.
func TestWhereClientEncodingComesFrom(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	admin := c.Connect(t, db)
	testkit.Exec(t, admin, "create table t (v text)")
	testkit.Exec(t, admin, "insert into t values ('é')")
	addr := fmt.Sprintf("127.0.0.1:%d", c.Port)
	check := func(want, name string, params map[string]string) {
		t.Helper()
		r := dialRaw(t, "tcp", addr, db, params)
		r.answer()
		r.send(&pgproto3.Query{String: "select v from t; show client_encoding"})
		said := strings.Join(r.answer(), "\n")
		if !strings.Contains(said, fmt.Sprintf("row %q", [][]byte{[]byte(want)})) || !strings.Contains(said, fmt.Sprintf("row %q", [][]byte{[]byte(name)})) ||
			!slices.Equal(r.encoding, []string{name}) {
			t.Errorf("%v: %v, %s", params, r.encoding, said)
		}
	}
	check("é", "UTF8", nil)
	check("\xe9", "LATIN1", map[string]string{"options": "-c client_encoding=latin1"})
	testkit.Exec(t, admin, "alter database "+db+" set client_encoding = 'latin9'")
	check("\xe9", "LATIN9", nil)
	check("é", "UTF8", map[string]string{"client_encoding": "UTF8"})
	check("\xe9", "WIN1252", map[string]string{"client_encoding": "WIN1252", "options": "-c client_encoding=latin1"})
	testkit.Exec(t, admin, "alter database "+db+" reset client_encoding")
	r := dialRaw(t, "tcp", addr, db, map[string]string{"client_encoding": "xyz"})
	if said := r.answer(); len(said) != 1 || !strings.HasPrefix(said[0], `FATAL 22023 "invalid value for parameter \"client_encoding\": \"xyz\""`) {
		t.Errorf("%q", said)
	}
}

// TestPsqlEncodings has psql speak LATIN1 and SJIS.
func TestPsqlEncodings(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	psql := func(input, env string) string {
		t.Helper()
		out, err := c.ShellInput(input, "psql -X -A -t -q -v ON_ERROR_STOP=1 -d "+db, env)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return out
	}
	got := psql("create table t (k int, v text) distributed by (k);\ninsert into t values (1, 'd\xe9j\xe0');\n"+
		"\\copy t from stdin\n2\t\xfcber\n\\.\nselect v from t order by k;\n\\encoding UTF8\nselect v from t where v = 'déjà';\n\\encoding\n", "PGCLIENTENCODING=LATIN1")
	if want := "d\xe9j\xe0\n\xfcber\ndéjà\nUTF8\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	got = psql("insert into t values (3, '\x95\x5c');\nselect v from t where k = 3;\nselect octet_length(v) from t where k = 3;\n\\copy (select v from t where k = 3) to stdout\n", "PGCLIENTENCODING=SJIS")
	if want := "\x95\x5c\n3\n\x95\x5c\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestDatabaseInLatin1 works in a database that keeps LATIN1.
func TestDatabaseInLatin1(t *testing.T) {
	c := beside(t)
	admin := c.Connect(t, "postgres")
	testkit.Exec(t, admin, "create database in_latin1 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0")
	t.Cleanup(func() { testkit.Exec(t, admin, "drop database in_latin1") })
	modes(t, func(t *testing.T, mode string) {
		conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d user=gpadmin dbname=in_latin1 client_encoding=UTF8 options='-c %s'", c.Port, mode))
		if err != nil {
			t.Fatal(err)
		}
		defer testkit.Close(conn)
		testkit.Exec(t, conn, "create table t (k text, v text) distributed by (k)")
		testkit.Exec(t, conn, "insert into t select chr(200 + i), 'é' || i from generate_series(1, 20) i")
		testkit.Exec(t, conn, "insert into t values ('ß', 'ü')")
		for sql, want := range map[string]string{
			"select v from t where k = 'ß'":                                             "ü",
			"select v from t where k = chr(201)":                                        "é1",
			"select count(*) from t a join t b on a.k = b.k":                            "21",
			"select count(*) from t a where v in (select b.v from t b where b.k > 'Û')": "2",
			"select string_agg(v, ',' order by v) from t where k in ('ß', 'É')":         "é1,ü",
			"show server_encoding":                                                      "LATIN1",
			"select count(distinct gp_segment_id) > 1 from t":                           "t",
		} {
			if got := testkit.Value(t, conn, sql); got != want {
				t.Errorf("%s: %s, expected %s", sql, got, want)
			}
		}
		if err := testkit.TryExec(conn, "insert into t values ('€', '')"); err == nil || testkit.SQLState(err) != "22P05" {
			t.Errorf("a character that LATIN1 lacks: %v", err)
		}
		r := dialRaw(t, "tcp", fmt.Sprintf("127.0.0.1:%d", c.Port), "in_latin1", nil)
		r.answer()
		r.send(&pgproto3.Query{String: "select v from t where k = '\xdf'"})
		if said := r.answer(); !slices.Equal(r.encoding, []string{"LATIN1"}) || said[1] != fmt.Sprintf("row %q", [][]byte{{0xfc}}) {
			t.Errorf("%v: %q", r.encoding, said)
		}
		testkit.Exec(t, conn, "drop table t")
	})
}
