package catalog

import (
	"strconv"
	"strings"

	"github.com/trunkline-db/trunkline/guc"
)

// parameter is one row of pg_settings as SQL constants.
type parameter struct {
	Name, Unit, Category, Short, Context, Type, Min, Max, Enum, Default string
}

func newParameter(p *guc.Parameter) parameter {
	null := func(s string) string {
		if s == "" {
			return "NULL::text"
		}
		return Literal(s)
	}
	row := parameter{
		Name: p.Name, Unit: null(p.Unit), Category: p.Category, Short: p.Short,
		Context: p.Context.String(), Type: p.Type.String(), Min: "NULL::text", Max: "NULL::text",
		Enum: "NULL::text", Default: p.Default,
	}
	if p.Type == guc.Int || p.Type == guc.Real {
		number := func(f float64) string { return Literal(strconv.FormatFloat(f, 'f', -1, 64)) }
		row.Min, row.Max = number(p.Min), number(p.Max)
	}
	if len(p.Enum) > 0 {
		row.Enum = Literal("{" + strings.Join(p.Enum, ",") + "}")
	}
	return row
}
