package catalog

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"text/template"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/guc"
)

//go:embed catalog.sql
var catalogSQL string

// Info is what an instance's catalog says of itself.
type Info struct {
	Dbid    uint16
	Content int16 // -1: coordinator
	// ConfigurationFile is the cluster's gp_segment_configuration file.
	ConfigurationFile string
	// RowsDir and Port make the socket of the row source (package datadir).
	RowsDir string
	Port    int
	// Superuser is the role the row source connection names.
	Superuser string
}

// Superuser is the role that owns an embedded cluster's databases.
const Superuser = "gpadmin"

// Install creates the catalog in the database conn is connected to, as
// superuser. It is run once in every database made by initdb; databases
// created later inherit it from template1.
func Install(ctx context.Context, conn *pgconn.PgConn, info Info) error {
	sql, err := render(info)
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("installing the catalog of dbid %d: %w", info.Dbid, err)
	}
	return nil
}

func render(info Info) (string, error) {
	t, err := template.New("catalog").Funcs(template.FuncMap{"lit": Literal}).Parse(catalogSQL)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	data := struct {
		Info
		Coordinator bool
		Parameters  []parameter
		Names       string
		RowCounts   []rowCount
	}{Info: info, Coordinator: info.Content == -1, RowCounts: rowCounts}
	var names []string
	for _, p := range guc.All() {
		names = append(names, Literal(p.Name))
		if !p.Hidden {
			data.Parameters = append(data.Parameters, newParameter(p))
		}
	}
	data.Names = strings.Join(names, ",")
	err = t.Execute(&b, data)
	return b.String(), err
}

// rowCount is a variant of the row source function that tells PostgreSQL's
// planner to expect 10^Exp rows.
type rowCount struct {
	Exp  int
	Rows int
}

var rowCounts = []rowCount{{0, 1}, {1, 10}, {2, 100}, {3, 1000}, {4, 10_000}, {5, 100_000}, {6, 1_000_000}, {7, 10_000_000}}

// Literal quotes s as an SQL string constant that reads the same whatever
// standard_conforming_strings says.
func Literal(s string) string {
	q := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.ContainsRune(s, '\\') {
		q = " E" + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}

// Ident quotes s as an SQL identifier.
func Ident(s string) string {
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}
