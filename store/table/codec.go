package table

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"igcsearch/search"
)

// WriteCSV writes rows of a study as CSV, with the columns of times if asked for.
func WriteCSV(w io.Writer, s search.Study, rows iter.Seq[Row], times bool) error {
	form := networksCSV
	if s.OfPairs() {
		form = pairsCSV
	}
	list := of(form, times)
	cells := make([]string, len(list))
	for i, c := range list {
		cells[i] = c.name
	}
	out := csv.NewWriter(w)
	out.Write(cells) // out keeps an error until the end
	for r := range rows {
		for i, c := range list {
			cells[i] = c.text(&r)
		}
		out.Write(cells)
	}
	out.Flush()
	return out.Error()
}

// WriteJSON writes rows of a study as JSON, after the settings of the study and their fingerprint.
func WriteJSON(w io.Writer, s search.Study, rows iter.Seq[Row], times bool) error {
	return encode(w, "  ", struct {
		Study       string          `json:"study"`
		Title       string          `json:"title"`
		Fingerprint string          `json:"fingerprint"`
		Settings    json.RawMessage `json:"settings"`
		Trials      Objects         `json:"trials"`
	}{s.Name, s.Title, s.Fingerprint(), s.Settings(), Objects{rows, times}})
}

// Objects are rows as an array of JSON.
type Objects struct {
	Rows  iter.Seq[Row]
	Times bool // with the columns of times
}

// MarshalJSON writes an object for each row.
func (o Objects) MarshalJSON() ([]byte, error) {
	list := of(inJSON, o.Times)
	text := []byte{'['}
	for r := range o.Rows {
		if len(text) > 1 {
			text = append(text, ',')
		}
		between := byte('{')
		for _, c := range list {
			value, err := c.json(&r)
			if err != nil {
				return nil, err
			}
			if value != nil {
				text = fmt.Appendf(append(text, between), "%q:%s", c.name, value)
				between = ','
			}
		}
		text = append(text, '}')
	}
	return append(text, ']'), nil
}

// marshal is json.Marshal that leaves <, > and & in texts as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	err := encode(&b, "", v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func encode(w io.Writer, indent string, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", indent)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// File is what an exported file says.
type File struct {
	// Study is nil in CSV, which has no settings. Its settings are normalised and have the fingerprint of the file.
	Study *search.Study
	Rows  []Row
	// Older reports that an older igcsearch wrote the CSV, which did not record the losses of evaluations.
	Older bool
}

// Read reads what WriteCSV or WriteJSON wrote. It refuses a file without a needed column, and one with an unknown
// column.
func Read(text []byte) (File, error) {
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return readJSON(text)
	}
	return readCSV(text)
}

func readCSV(text []byte) (File, error) {
	all, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		return File{}, err
	}
	if len(all) == 0 {
		return File{}, errors.New("it is empty")
	}
	form := pairsCSV
	if slices.Contains(all[0], "network") {
		form = networksCSV
	}
	list, err := present(form, all[0])
	if err != nil {
		return File{}, err
	}
	at := make([]int, len(list)) // index in the file's header
	for i, c := range list {
		at[i] = slices.Index(all[0], c.name)
	}
	f := File{Rows: make([]Row, len(all)-1), Older: !slices.Contains(all[0], "validation_loss") && !slices.Contains(all[0], "test_loss")}
	for k, cells := range all[1:] {
		for i, c := range list {
			if err := c.set(&f.Rows[k], cells[at[i]]); err != nil {
				return File{}, fmt.Errorf("row %d: %w", k+1, err)
			}
		}
		if err := f.Rows[k].check(); err != nil {
			return File{}, fmt.Errorf("row %d: %w", k+1, err)
		}
	}
	return f, nil
}

// check refuses values that no training measures.
func (r *Row) check() error {
	for _, of := range []struct {
		split          string
		correct, total int
	}{
		{"train", r.TrainCorrect, r.TrainTotal},
		{"validation", r.ValidationCorrect, r.ValidationTotal},
		{"test", r.TestCorrect, r.TestTotal},
	} {
		if of.correct < 0 || of.correct > of.total {
			return fmt.Errorf("%s_correct is %d and %s_total %d: want 0 or more, and no more than the total",
				of.split, of.correct, of.split, of.total)
		}
	}
	for _, v := range r.Values() {
		if x, ok := v.At.(*float64); ok && *x < 0 && v.Name != "train_loss" { // what diverged may have any loss
			return fmt.Errorf("%s is %g: want 0 or more", v.Name, *x)
		}
	}
	return nil
}

// present returns the columns of a form that a file has by their names.
func present(form forms, names []string) ([]column, error) {
	var list []column
	for _, c := range of(form, true) {
		switch i := slices.Index(names, c.name); {
		case i < 0 && c.need == needed:
			return nil, fmt.Errorf("it has no column %s", c.name)
		case i >= 0 && slices.Contains(names[i+1:], c.name):
			return nil, fmt.Errorf("it has the column %s twice", c.name)
		case i >= 0:
			list = append(list, c)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(list, func(c column) bool { return c.name == name }) {
			return nil, fmt.Errorf("its column %q is unknown", name)
		}
	}
	return list, nil
}

func readJSON(text []byte) (File, error) {
	var file struct {
		Title       string                       `json:"title"`
		Fingerprint string                       `json:"fingerprint"`
		Settings    json.RawMessage              `json:"settings"`
		Trials      []map[string]json.RawMessage `json:"trials"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return File{}, err
	}
	s, err := readSettings(file.Settings)
	if err != nil {
		return File{}, fmt.Errorf("its settings: %w", err)
	}
	s.Title = file.Title
	if s.Fingerprint() != file.Fingerprint {
		return File{}, errors.New("its fingerprint is not that of its settings")
	}
	f := File{Study: &s, Rows: make([]Row, len(file.Trials))}
	var list []column
	for k, fields := range file.Trials {
		isLike := func(c column) bool { _, there := fields[c.name]; return there }
		if len(fields) != len(list) || !all(list, isLike) { // rows mostly have the fields of the one before
			list, err = present(inJSON, slices.Sorted(maps.Keys(fields)))
		}
		for _, c := range list {
			err = cmp.Or(err, c.setJSON(&f.Rows[k], fields[c.name]))
		}
		if err == nil {
			err = f.Rows[k].check()
		}
		if err != nil {
			return File{}, fmt.Errorf("row %d: %w", k+1, err)
		}
	}
	return f, nil
}

// all reports whether something holds for all columns.
func all(list []column, holds func(column) bool) bool {
	return !slices.ContainsFunc(list, func(c column) bool { return !holds(c) })
}

func readSettings(text []byte) (search.Study, error) {
	var s search.Study
	if err := json.Unmarshal(text, &s); err != nil {
		return s, err
	}
	sum, unreadable := s.DataSum, s.Unreadable // which Normalize drops: they are of the pictures that were found
	s, err := s.Normalize()
	s.DataSum, s.Unreadable = sum, unreadable
	return s, err
}
