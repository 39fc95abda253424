package table

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"igcsearch/search"
)

// forms is a set of output forms.
type forms int

const (
	pairsCSV forms = 1 << iota
	networksCSV
	inJSON

	everywhere = pairsCSV | networksCSV | inJSON
)

// need says how a reader treats a column that a file lacks.
type need int

const (
	needed need = iota
	// optional columns are always written. Files of an older igcsearch, or CSVs of networks, may lack them; the value
	// is 0 then.
	optional
	// onRequest columns are written only on request.
	onRequest
	// ofAxis columns are of a setting of which the study has a list. Files of other studies lack them.
	ofAxis
	// ifKnown columns are in a row of JSON only if they are not empty.
	ifKnown
)

// column is one column of a CSV, or one field of the rows in JSON.
type column struct {
	name string
	in   forms
	need need
	at   func(*Row) any // *int, *float64 or *string: the value, to be read or written
	// blank reports whether the row has no such value. Then the cell is empty, and null in JSON. Without it each row
	// has one.
	blank func(*Row) bool
	// axis is the key of a setting that can be an axis; the value is that of Row.At, and a number. "" for other columns.
	axis string
}

// columns lists all columns in their order. A new metric of search.Epoch needs one line here, an optionalMetric.
var columns = []column{
	{name: "system", in: inJSON, need: ifKnown, at: func(r *Row) any { return &r.System }},
	{name: "network", in: networksCSV, at: func(r *Row) any { return &r.Network }},
	{name: "L", in: pairsCSV | inJSON, at: func(r *Row) any { return &r.Pair.L }},
	{name: "M", in: pairsCSV | inJSON, at: func(r *Row) any { return &r.Pair.M }},
	{name: "depth", in: networksCSV, at: func(r *Row) any { return &r.Depth }},
	{name: "width", in: pairsCSV | inJSON, need: optional, at: func(r *Row) any { return &r.Width }},
	{name: "params", in: everywhere, at: func(r *Row) any { return &r.Params }},
	axisColumn("epochs"), axisColumn("batch"), axisColumn("learning_rate"), axisColumn("weight_decay"),
	{name: "seed", in: everywhere, at: func(r *Row) any { return &r.Seed }},
	{name: "status", in: everywhere, at: func(r *Row) any { return (*string)(&r.Status) }},
	{name: "epoch", in: everywhere, at: func(r *Row) any { return &r.Number }},
	{name: "epochs", in: everywhere, at: func(r *Row) any { return &r.Epochs }},
	{name: "learning_rate", in: everywhere, at: func(r *Row) any { return &r.LearningRate }, blank: beforeFirst},
	{name: "train_loss", in: everywhere, at: func(r *Row) any { return &r.TrainLoss }, blank: beforeFirst},
	{name: "train_correct", in: everywhere, at: func(r *Row) any { return &r.TrainCorrect }},
	{name: "train_total", in: everywhere, at: func(r *Row) any { return &r.TrainTotal }},
	{name: "validation_correct", in: everywhere, at: func(r *Row) any { return &r.ValidationCorrect }},
	{name: "validation_total", in: everywhere, at: func(r *Row) any { return &r.ValidationTotal }},
	{name: "test_correct", in: everywhere, at: func(r *Row) any { return &r.TestCorrect }},
	{name: "test_total", in: everywhere, at: func(r *Row) any { return &r.TestTotal }},
	optionalMetric("validation_loss", func(r *Row) *float64 { return &r.ValidationLoss }),
	optionalMetric("test_loss", func(r *Row) *float64 { return &r.TestLoss }),
	{name: "error", in: everywhere, at: func(r *Row) any { return &r.Error }},
	{name: "failure", in: inJSON, need: ifKnown, at: func(r *Row) any { return (*string)(&r.Failure) }},
	{name: "train_seconds", in: everywhere, need: onRequest, at: func(r *Row) any { return &r.TrainSeconds }},
	{name: "eval_seconds", in: everywhere, need: onRequest, at: func(r *Row) any { return &r.EvalSeconds }},
	// What JSON says once, beside the settings. The cells are the same in all rows.
	{name: "fingerprint", in: pairsCSV | networksCSV, need: optional, at: func(r *Row) any { return &r.Fingerprint }},
	{name: "data_sum", in: pairsCSV | networksCSV, need: optional, at: func(r *Row) any { return &r.DataSum }},
}

// optionalMetric is the column of an optional value of search.Epoch: the cell of a value that was not recorded is
// empty, and files of an older igcsearch may lack the column.
func optionalMetric(name string, at func(*Row) *float64) column {
	return column{name: name, in: everywhere, need: optional, at: func(r *Row) any { return at(r) },
		blank: func(r *Row) bool { return *at(r) == 0 }}
}

// axisColumn is the column of a setting that can be an axis. Its name differs from the columns of what an epoch measures.
func axisColumn(key string) column {
	return column{name: "set_" + key, in: everywhere, need: ofAxis, axis: key,
		at: func(r *Row) any {
			x, _ := r.At.Value(key)
			return &x
		},
		blank: func(r *Row) bool {
			_, ok := r.At.Value(key)
			return !ok
		}}
}

func beforeFirst(r *Row) bool { return r.Number == 0 }

// of returns the columns that a form has, those onRequest only with times, and those ofAxis only of axes.
func of(form forms, times bool, axes search.Axes) []column {
	var list []column
	for _, c := range columns {
		if c.in&form != 0 && (times || c.need != onRequest) && (c.axis == "" || axes.Has(c.axis)) {
			list = append(list, c)
		}
	}
	return list
}

// ofFiles returns all columns that files of a form may have.
func ofFiles(form forms) []column {
	return slices.DeleteFunc(slices.Clone(columns), func(c column) bool { return c.in&form == 0 })
}

// text returns a row's value as a cell of a CSV.
func (c column) text(r *Row) string {
	if c.blank != nil && c.blank(r) {
		return ""
	}
	switch at := c.at(r).(type) {
	case *int:
		return strconv.Itoa(*at)
	case *float64:
		return strconv.FormatFloat(*at, 'g', -1, 64)
	default:
		return *at.(*string)
	}
}

// setAxis reads the value of an axis into the row.
func (c column) setAxis(r *Row, text string) error {
	p, err := search.ParsePoint(c.axis + "=" + text)
	if err == nil {
		x, _ := p.Value(c.axis)
		r.At = r.At.With(c.axis, x)
	}
	return err
}

// set reads a cell of a CSV into the row.
func (c column) set(r *Row, cell string) (err error) {
	if c.axis != "" {
		return c.setAxis(r, cell)
	}
	switch at := c.at(r).(type) {
	case *int:
		*at, err = strconv.Atoi(cell)
	case *float64:
		if cell == "" && c.blank != nil {
			*at = c.absent(r)
		} else {
			*at, err = strconv.ParseFloat(cell, 64)
		}
	case *string:
		*at = cell
	}
	switch {
	case err != nil && strings.Contains(cell, ","):
		return fmt.Errorf("%s %q is not %s: write decimals with a point", c.name, cell, kind(c.at(r)))
	case err != nil:
		return fmt.Errorf("%s %q is not %s", c.name, cell, kind(c.at(r)))
	}
	return nil
}

// absent is the number that a blank cell stands for: NaN for the training loss of a recorded epoch, otherwise 0.
func (c column) absent(r *Row) float64 {
	if c.name == "train_loss" && r.Number > 0 {
		return math.NaN()
	}
	return 0
}

// Infinities have no number in JSON and are written in quotes.
const (
	infinity      = `"Infinity"`
	minusInfinity = `"-Infinity"`
)

// json returns a row's value as JSON; nil if the field is left out.
func (c column) json(r *Row) ([]byte, error) {
	switch isBlank := c.blank != nil && c.blank(r); {
	case isBlank && c.axis != "":
		return nil, nil
	case isBlank:
		return []byte("null"), nil
	}
	at := c.at(r)
	switch at := at.(type) {
	case *string:
		if *at == "" && c.need == ifKnown {
			return nil, nil
		}
	case *float64:
		switch {
		case math.IsNaN(*at):
			return []byte("null"), nil
		case math.IsInf(*at, 1):
			return []byte(infinity), nil
		case math.IsInf(*at, -1):
			return []byte(minusInfinity), nil
		}
	}
	return marshal(at)
}

// setJSON reads a field of JSON into the row.
func (c column) setJSON(r *Row, text []byte) error {
	if c.axis != "" {
		return c.setAxis(r, string(text))
	}
	var err error
	switch at := c.at(r).(type) {
	case *int:
		*at, err = strconv.Atoi(string(text))
	case *float64:
		switch {
		case c.blank != nil && string(text) == "null":
			*at = c.absent(r)
		case string(text) == infinity:
			*at = math.Inf(1)
		case string(text) == minusInfinity:
			*at = math.Inf(-1)
		default:
			*at, err = strconv.ParseFloat(string(text), 64)
		}
	case *string:
		if err = json.Unmarshal(text, at); string(text) == "null" {
			err = errors.New("null")
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s is not %s", c.name, text, kind(c.at(r)))
	}
	return nil
}

func kind(at any) string {
	switch at.(type) {
	case *int:
		return "a whole number"
	case *float64:
		return "a number"
	}
	return "a text"
}
