package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/topology"
)

const (
	connectTimeout = 10 * time.Second
	queryTimeout   = 30 * time.Second
)

// pgSetting is a row of pg_settings.
type pgSetting struct {
	name, unit, context, vartype, minVal, maxVal string
	enum                                         []string
}

// parameter makes what guc needs to check values of it.
func (s *pgSetting) parameter() *guc.Parameter {
	p := &guc.Parameter{Name: s.name, Type: guc.String, Unit: s.unit, Enum: s.enum}
	for _, k := range []guc.Kind{guc.Bool, guc.Int, guc.Real, guc.Enum} {
		if k.String() == s.vartype {
			p.Type = k
		}
	}
	p.Min, _ = strconv.ParseFloat(s.minVal, 64)
	p.Max, _ = strconv.ParseFloat(s.maxVal, 64)
	return p
}

// liveValue is what SHOW says of a parameter on one content.
type liveValue struct {
	content int16
	value   string
}

// catalog is what the utilities ask the running system.
type catalog interface {
	Instances(ctx context.Context) ([]topology.Instance, error)
	// Setting returns nil for a parameter that pg_settings does not list.
	Setting(ctx context.Context, name string) (*pgSetting, error)
	// Settings lists all that pg_settings does.
	Settings(ctx context.Context) ([]pgSetting, error)
	// Live returns the value on the coordinator and on each primary, as the
	// session that asks sees it.
	Live(ctx context.Context, name string) ([]liveValue, error)
	Close()
}

// openCatalog is how gpconfig comes to its catalog.
var openCatalog = func(ctx context.Context) (catalog, error) {
	c, err := connect(ctx, "gpconfig", os.Getenv("PGHOST"), os.Getenv("PGPORT"), "")
	if err != nil {
		return nil, err
	}
	return c, nil
}

// session is a connection to one instance. It is used by one goroutine.
type session struct{ conn *pgconn.PgConn }

// connect opens a session for a program; what it is not told comes from
// libpq's environment variables, and failing that is localhost, the port of
// the coordinator's data directory or 5432, the superuser, and template1.
// options are added to those of PGOPTIONS.
func connect(ctx context.Context, program, host, port, options string) (*session, error) {
	if host == "" {
		host = "localhost"
	}
	if port == "" {
		port = coordinatorPort()
	}
	db := os.Getenv("PGDATABASE")
	if db == "" {
		db = "template1"
	}
	config, err := clientConfig(program, host, port, db, options)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, config)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("could not connect to server: Connection refused. Is the server running on host %q "+
			"and accepting TCP/IP connections on port %s?", host, port)
	case err != nil:
		return nil, fmt.Errorf("could not connect to server: %w", err)
	}
	return &session{conn}, nil
}

// clientConfig is how a program connects as an ordinary client, by default as
// the superuser. options are added to those of PGOPTIONS.
func clientConfig(program, host, port, db, options string) (*pgconn.Config, error) {
	words := map[string]string{
		"host": host, "port": port, "dbname": db, "application_name": program,
		"options": strings.TrimSpace(os.Getenv("PGOPTIONS") + " " + options),
	}
	if os.Getenv("PGUSER") == "" {
		words["user"] = instance.Superuser
	}
	var s []string
	for k, v := range words {
		if v != "" {
			s = append(s, k+"='"+strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(v)+"'")
		}
	}
	return pgconn.ParseConfig(strings.Join(s, " "))
}

func coordinatorPort() string {
	if dir, err := coordinatorDir(""); err == nil {
		if c, _ := guc.ReadConf(datadir.Dir(dir).Conf()); c != nil {
			if port, ok := c.Get("port"); ok {
				return port
			}
		}
	}
	return "5432"
}

// Close says goodbye to the server.
func (s *session) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// query runs one statement by the simple protocol. NULL comes as "".
func (s *session) query(ctx context.Context, sql string) ([][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	results, err := s.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			cells := make([]string, len(row))
			for i, c := range row {
				cells[i] = string(c)
			}
			rows = append(rows, cells)
		}
	}
	return rows, nil
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// identifier quotes a parameter's name, whose parts may be joined by a dot.
func identifier(name string) string {
	parts := strings.Split(strings.ToLower(name), ".")
	for i, p := range parts {
		parts[i] = `"` + strings.ReplaceAll(p, `"`, `""`) + `"`
	}
	return strings.Join(parts, ".")
}

func (s *session) Instances(ctx context.Context) ([]topology.Instance, error) {
	rows, err := s.query(ctx, `SELECT dbid, content, role, preferred_role, mode, status, port, hostname, address, datadir
		FROM gp_segment_configuration ORDER BY dbid`)
	if err != nil {
		return nil, err
	}
	var list []topology.Instance
	for _, r := range rows {
		i, err := topology.ParseRow(r)
		if err != nil {
			return nil, fmt.Errorf("gp_segment_configuration: %w", err)
		}
		list = append(list, i)
	}
	if len(list) == 0 {
		return nil, errors.New("gp_segment_configuration is empty")
	}
	return list, nil
}

const settingsQuery = `SELECT name, coalesce(unit, ''), context, vartype, coalesce(min_val, ''), coalesce(max_val, ''),
	coalesce(array_to_string(enumvals, ','), '') FROM pg_settings`

func (s *session) Setting(ctx context.Context, name string) (*pgSetting, error) {
	list, err := s.settings(ctx, settingsQuery+" WHERE name = "+literal(strings.ToLower(name)))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

func (s *session) Settings(ctx context.Context) ([]pgSetting, error) {
	return s.settings(ctx, settingsQuery+" ORDER BY 1")
}

func (s *session) settings(ctx context.Context, sql string) ([]pgSetting, error) {
	rows, err := s.query(ctx, sql)
	if err != nil {
		return nil, err
	}
	var list []pgSetting
	for _, r := range rows {
		if len(r) != 7 {
			return nil, fmt.Errorf("pg_settings: %d columns", len(r))
		}
		p := pgSetting{name: r[0], unit: r[1], context: r[2], vartype: r[3], minVal: r[4], maxVal: r[5]}
		if r[6] != "" {
			p.enum = strings.Split(r[6], ",")
		}
		list = append(list, p)
	}
	return list, nil
}

func (s *session) Live(ctx context.Context, name string) ([]liveValue, error) {
	rows, err := s.query(ctx, "SELECT paramsegment, paramvalue FROM gp_toolkit.gp_param_setting("+literal(name)+")")
	if err == nil {
		var list []liveValue
		for _, r := range rows {
			content, err := strconv.ParseInt(r[0], 10, 16)
			if err != nil {
				return nil, err
			}
			list = append(list, liveValue{int16(content), r[1]})
		}
		return list, nil
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "3F000" && pg.Code != "42883" {
		return nil, err
	}
	return s.ask(ctx, name)
}

// ask does without gp_toolkit, which a database may lack: it shows the value
// here and in a utility session of each primary.
func (s *session) ask(ctx context.Context, name string) ([]liveValue, error) {
	rows, err := s.query(ctx, "SHOW "+identifier(name))
	if err != nil {
		return nil, err
	}
	list := []liveValue{{topology.ContentCoordinator, rows[0][0]}}
	instances, err := s.Instances(ctx)
	if err != nil {
		return nil, err
	}
	for _, i := range instances {
		if !i.IsPrimary() {
			continue
		}
		v, err := askSegment(ctx, i, name)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", i, err)
		}
		list = append(list, liveValue{i.Content, v})
	}
	return list, nil
}

// askSegment reads a value on a segment, where Greenplum's parameters are
// known to PostgreSQL with a prefix and in canonical form.
func askSegment(ctx context.Context, i topology.Instance, name string) (string, error) {
	seg, err := connect(ctx, "gpconfig", i.Address, strconv.Itoa(i.Port), "-c gp_role=utility")
	if err != nil {
		return "", err
	}
	defer seg.Close()
	p, known := guc.Lookup(name)
	if known {
		name = "trunkline." + p.Name
	}
	rows, err := seg.query(ctx, "SELECT current_setting("+literal(name)+")")
	if err != nil {
		return "", err
	}
	if known {
		return p.Show(rows[0][0]), nil
	}
	return rows[0][0], nil
}
