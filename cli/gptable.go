package cli

import "strings"

const dashes = "----------------------------------------------------"

// table collects rows that are logged with their columns aligned.
type table struct {
	rows []tableRow
}

type tableRow struct {
	cells     []string
	warning   bool
	separator bool
}

func (b *table) info(cells ...string) { b.rows = append(b.rows, tableRow{cells: cells}) }

// infoOrWarn adds a row that is a warning if so.
func (b *table) infoOrWarn(warning bool, cells ...string) {
	b.rows = append(b.rows, tableRow{cells: cells, warning: warning})
}

func (b *table) separate() { b.rows = append(b.rows, tableRow{separator: true}) }

func (b *table) hasWarnings() bool {
	for _, r := range b.rows {
		if r.warning {
			return true
		}
	}
	return false
}

// print logs the rows: each column padded to its widest cell and three blanks,
// warnings marked by arrows at the end.
func (b *table) print(t *gpTool) {
	var widths []int
	for _, r := range b.rows {
		for i, c := range r.cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len(c))
		}
	}
	for _, r := range b.rows {
		if r.separator {
			t.info(dashes)
			continue
		}
		cells := r.cells
		if r.warning {
			cells = append(cells[:len(cells):len(cells)], "<<<<<<<<")
		}
		var line strings.Builder
		for i, c := range cells {
			line.WriteString(c)
			if i < len(cells)-1 {
				pad := 3
				if i < len(widths) {
					pad += widths[i] - len(c)
				}
				line.WriteString(strings.Repeat(" ", pad))
			}
		}
		if r.warning {
			t.warn("%s", line.String())
		} else {
			t.info("   %s", line.String())
		}
	}
}
