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
	at   func(*Row) any // *int, *float64 or *string: the value, to be read or written; nil if it is derived
	// derived is the value of a column that other columns determine. It is written, and compared when it is read.
	derived func(*Row) float64
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
	accuracy("train"),
	{name: "validation_correct", in: everywhere, at: func(r *Row) any { return &r.ValidationCorrect }},
	{name: "validation_total", in: everywhere, at: func(r *Row) any { return &r.ValidationTotal }},
	accuracy("validation"),
	{name: "test_correct", in: everywhere, at: func(r *Row) any { return &r.TestCorrect }},
	{name: "test_total", in: everywhere, at: func(r *Row) any { return &r.TestTotal }},
	accuracy("test"),
	optionalMetric("validation_loss", func(r *Row) *float64 { return &r.ValidationLoss }),
	optionalMetric("test_loss", func(r *Row) *float64 { return &r.TestLoss }),
	{name: "error", in: everywhere, at: func(r *Row) any { return &r.Error }},
	{name: "failure", in: inJSON, need: ifKnown, at: func(r *Row) any { return (*string)(&r.Failure) }},
	{name: "train_seconds", in: everywhere, need: onRequest, at: func(r *Row) any { return &r.TrainSeconds }},
	{name: "eval_seconds", in: everywhere, need: onRequest, at: func(r *Row) any { return &r.EvalSeconds }},
	// What JSON says once, beside the settings. The cells are the same in all rows.
	{name: "precision", in: pairsCSV | networksCSV, need: optional, at: func(r *Row) any { return &r.Precision }},
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

// accuracy is the column of the accuracy on a split in percent, with four decimals. Its cell is empty if the split has
// no pictures. JSON, which programs read, has the counts only.
func accuracy(split string) column {
	return column{name: split + "_accuracy", in: pairsCSV | networksCSV, need: optional,
		derived: func(r *Row) float64 {
			correct, total := r.Correct(split)
			return 100 * float64(correct) / float64(total)
		},
		blank: func(r *Row) bool {
			_, total := r.Correct(split)
			return total == 0
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
	if c.derived != nil {
		return strconv.FormatFloat(c.derived(r), 'f', 4, 64)
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

// set reads a cell of a CSV into the row, which has the columns before this one already.
func (c column) set(r *Row, cell string) (err error) {
	switch {
	case c.axis != "":
		return c.setAxis(r, cell)
	case c.derived != nil:
		return c.compare(r, cell)
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
	if err != nil {
		return malformed(c.name, cell, kind(c.at(r)))
	}
	return nil
}

// rounded is how far a spreadsheet that shows two decimals may move a percentage.
const rounded = 0.0051

// compare returns an error if a cell contradicts the value that the row has by its other columns.
func (c column) compare(r *Row, cell string) error {
	blank := c.blank(r)
	if blank && cell == "" {
		return nil
	}
	x, err := strconv.ParseFloat(cell, 64)
	switch {
	case cell != "" && err != nil:
		return malformed(c.name, cell, "a number")
	case blank:
		return fmt.Errorf("%s is %s, but by the counts beside it there are no pictures", c.name, cell)
	case cell == "" || !(math.Abs(x-c.derived(r)) <= rounded): // also if it is not a number
		return fmt.Errorf("%s is %q, but by the counts beside it is %s", c.name, cell, c.text(r))
	}
	return nil
}

// malformed is the error of a cell that has not the form of its column.
func malformed(name, cell, want string) error {
	if strings.Contains(cell, ",") {
		want += ": write decimals with a point"
	}
	return fmt.Errorf("%s %q is not %s", name, cell, want)
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
