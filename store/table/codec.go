package table

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"igcsearch/search"
)

// WriteCSV writes rows of a study as CSV, with the columns of times if asked for. The precision and the
// fingerprint of the study and the checksum of its pictures are columns, because spreadsheets and data frames lose
// whatever is no cell.
func WriteCSV(w io.Writer, s search.Study, rows iter.Seq[Row], times bool) error {
	form := networksCSV
	if s.OfPairs() {
		form = pairsCSV
	}
	list := of(form, times, s.Axes)
	cells := make([]string, len(list))
	for i, c := range list {
		cells[i] = c.name
	}
	out := csv.NewWriter(w)
	out.Write(cells) // out keeps an error until the end
	precision, fingerprint := cmp.Or(s.Precision, search.PrecisionF32), s.Fingerprint()
	for r := range rows {
		r.Precision, r.Fingerprint, r.DataSum = precision, fingerprint, s.DataSum
		for i, c := range list {
			cells[i] = search.Printable(c.text(&r)) // spreadsheets and terminals show it
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
	list := slices.DeleteFunc(ofFiles(inJSON), func(c column) bool { return c.need == onRequest && !o.Times })
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
	// Precision and Fingerprint are of the study, and DataSum its checksum of the pictures; "" in a CSV that does not
	// say them.
	Precision, Fingerprint, DataSum string
	Rows                            []Row // at least one
	// Older reports that an older igcsearch wrote the CSV, which did not record the losses of evaluations.
	Older bool
}

// Read reads what WriteCSV or WriteJSON wrote. It refuses a file without rows or without a needed column, and one with
// an unknown column or setting. It passes over the byte order mark that Excel writes.
func Read(text []byte) (File, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	f, err := read(text)
	if err == nil && len(f.Rows) == 0 {
		err = errors.New("it has no trials")
	}
	return f, err
}

func read(text []byte) (File, error) {
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return readJSON(text)
	}
	return readCSV(text)
}

// separated refuses a table that a spreadsheet saved in another way. Its numbers are not to be trusted either: where a
// semicolon separates the columns, a spreadsheet may have read the point of a loss as one between thousands.
func separated(text []byte) error {
	header, _, _ := bytes.Cut(text, []byte("\n"))
	is := ""
	switch {
	case bytes.IndexByte(header, 0) >= 0:
		is = "its text is not in UTF-8"
	case bytes.IndexByte(header, ',') >= 0:
		return nil
	case bytes.IndexByte(header, ';') >= 0:
		is = "semicolons separate its columns"
	case bytes.IndexByte(header, '\t') >= 0:
		is = "tabs separate its columns"
	default:
		return nil
	}
	return fmt.Errorf("%s: save it as CSV in UTF-8, with commas between the columns and points in the numbers, or take "+
		"the exported file itself", is)
}

func readCSV(text []byte) (File, error) {
	if err := separated(text); err != nil {
		return File{}, err
	}
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
	older := !slices.Contains(all[0], "validation_loss") && !slices.Contains(all[0], "test_loss")
	f := File{Rows: make([]Row, len(all)-1), Older: older}
	for k, cells := range all[1:] {
		for i, c := range list {
			if err := c.set(&f.Rows[k], cells[at[i]]); err != nil {
				return File{}, fmt.Errorf("row %d: %w", k+1, err)
			}
		}
		if err := f.Rows[k].check(); err != nil {
			return File{}, fmt.Errorf("row %d: %w", k+1, err)
		}
		if first, r := f.Rows[0], f.Rows[k]; r.Precision != first.Precision || r.Fingerprint != first.Fingerprint ||
			r.DataSum != first.DataSum {
			return File{}, fmt.Errorf("row %d: its precision, fingerprint or data_sum is not that of row 1: want the results "+
				"of one study", k+1)
		}
	}
	if len(f.Rows) > 0 {
		f.Precision, f.Fingerprint, f.DataSum = f.Rows[0].Precision, f.Rows[0].Fingerprint, f.Rows[0].DataSum
	}
	return f, nil
}

// check refuses values that no training measures.
func (r *Row) check() error {
	if err := r.Check(); err != nil {
		return err
	}
	switch {
	case r.ValidationTotal == 0 && r.ValidationLoss != 0:
		return errors.New("it has a validation_loss without validation pictures")
	case r.TestTotal == 0 && r.TestLoss != 0:
		return errors.New("it has a test_loss without test pictures")
	}
	return nil
}

// present returns the columns of a form that a file has by their names.
func present(form forms, names []string) ([]column, error) {
	var list []column
	for _, c := range ofFiles(form) {
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
		Study       string                       `json:"study"`
		Title       string                       `json:"title"`
		Fingerprint string                       `json:"fingerprint"`
		Settings    json.RawMessage              `json:"settings"`
		Trials      []map[string]json.RawMessage `json:"trials"`
	}
	if err := decode(text, &file); err != nil {
		return File{}, err
	}
	s, err := readSettings(file.Settings)
	if err != nil {
		return File{}, fmt.Errorf("its settings: %w", err)
	}
	s.Title = file.Title
	switch {
	case file.Fingerprint != s.Fingerprint() && file.Fingerprint != olderFingerprint(file.Settings):
		return File{}, errors.New("its fingerprint is not that of its settings")
	case file.Study != s.Name:
		return File{}, fmt.Errorf("its study is %q, but its settings have the name %q", file.Study, s.Name)
	}
	f := File{Study: &s, Precision: cmp.Or(s.Precision, search.PrecisionF32), Fingerprint: s.Fingerprint(), DataSum: s.DataSum,
		Rows: make([]Row, len(file.Trials))}
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

// olderFingerprint is the fingerprint of settings that a version wrote whose fingerprints covered all settings, as
// their JSON stood. It shows that nobody changed the settings since.
func olderFingerprint(settings []byte) string {
	var b bytes.Buffer
	if err := json.Compact(&b, settings); err != nil {
		return ""
	}
	sum := sha256.Sum256(b.Bytes())
	return hex.EncodeToString(sum[:])
}

// decode is json.Unmarshal that refuses an unknown key.
func decode(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("there is more text after its end")
		}
	}
	if err == nil {
		return nil
	}
	if key, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok { // the package has no type for it
		return fmt.Errorf("its key %s is unknown", key)
	}
	return err
}

func readSettings(text []byte) (search.Study, error) {
	var s search.Study
	if err := decode(text, &s); err != nil {
		return s, err
	}
	sum, unreadable := s.DataSum, s.Unreadable // which Normalize drops: they are of the pictures that were found
	s, err := s.Normalize()
	s.DataSum, s.Unreadable = sum, unreadable
	return s, err
}
