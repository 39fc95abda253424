// Package studies holds the study files that are part of the program, and reads the files of its users. A study file is
// TOML. It is decoded strictly over search.Default, so that it holds only what differs from the paper's protocol.
package studies

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"igcsearch/search"
	"igcsearch/search/regular"
	"igcsearch/space"
)

// SetError is an error in an override of a setting. Its text starts with the override or with its key.
type SetError struct{ Err error }

func (e *SetError) Error() string { return e.Err.Error() }
func (e *SetError) Unwrap() error { return e.Err }

func setError(format string, args ...any) error { return &SetError{fmt.Errorf(format, args...)} }

// UnknownError is the error for a name that no shipped study has.
type UnknownError struct {
	Name   string
	NoFile bool // it may be a file too, which does not exist
}

func (e *UnknownError) Error() string {
	text := fmt.Sprintf("study %q is not a shipped study", e.Name)
	if e.NoFile {
		text = fmt.Sprintf("study %q is neither a shipped study nor a file", e.Name)
	}
	if name := nearest(strings.TrimSuffix(path.Base(e.Name), ".toml"), Names()); name != "" {
		text += fmt.Sprintf(" (did you mean %q?)", name)
	}
	return text
}

//go:embed *.toml
var files embed.FS

// Names lists the shipped studies, sorted.
func Names() []string {
	paths, err := fs.Glob(files, "*.toml")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	for i, p := range paths {
		paths[i] = strings.TrimSuffix(p, path.Ext(p))
	}
	slices.Sort(paths)
	return paths
}

// Source returns the file of a shipped study, for people to read and copy.
func Source(name string) ([]byte, error) {
	text, err := files.ReadFile(name + ".toml")
	if err != nil {
		return nil, &UnknownError{Name: name}
	}
	return text, nil
}

// Load reads the shipped study of that name, or else a file. It overrides keys by set, each "key=value", and normalises
// the study. A value is read as TOML, or as a string if it is not TOML. Setting the budget of a study that lists its
// pairs drops the list. It is an error to set what has no effect: tolerance or all beside a list, or a budget beside
// pairs.
//
// Errors name the file and the line: of a syntax error, an unknown key, a wrong type, or a setting out of its range.
// A SetError is an error in set.
func Load(nameOrFile string, set []string) (search.Study, error) {
	if text, err := files.ReadFile(nameOrFile + ".toml"); err == nil {
		return Parse(nameOrFile+".toml", text, set)
	}
	text, err := regular.ReadGiven(nameOrFile, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return search.Study{}, &UnknownError{Name: nameOrFile, NoFile: true}
	}
	if err != nil {
		return search.Study{}, fmt.Errorf("read study: %w", err)
	}
	return Parse(nameOrFile, text, set)
}

// maxFile is the largest study file, in bytes.
const maxFile = 16 << 20

// Parse is Load of a file's text. Errors name it by file.
func Parse(file string, text []byte, set []string) (search.Study, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // some editors put a byte order mark
	s := search.Default()
	lines, err := keyLines(text)
	if err == nil {
		err = decode(text, &s)
	}
	if err != nil {
		return s, located(file, text, lines, err)
	}
	keys, err := overrideAll(&s, set, file)
	if err != nil {
		return s, err
	}
	normal, err := s.Normalize()
	if err != nil {
		return s, outOfRange(file, text, lines, keys, err)
	}
	return normal, nil
}

// Change overrides keys of a normalised study, as Load does, and normalises the study again. A budget that has chosen its
// networks chooses them again if an override changes what they depend on.
func Change(s search.Study, set []string) (search.Study, error) {
	changes := func(keys ...string) bool {
		return slices.ContainsFunc(set, func(assignment string) bool {
			key, _, _ := strings.Cut(assignment, "=")
			return slices.Contains(keys, strings.TrimSpace(key))
		})
	}
	if s.Budget > 0 && changes("tolerance", "all", "variant", "kernel") {
		s.Pairs = nil
	}
	if (s.StageParams > 0 || s.StageMultiplyAdds > 0) && changes("tolerance", "variant", "kernel", "stage_top", "depths") {
		s.Systems = nil
	}
	if len(s.Families) > 0 && changes("families", "per_family", "tolerance", "depths", "blocks", "layout") {
		s.Systems = nil
	}
	refill(&s)
	keys, err := overrideAll(&s, set, "study "+s.Name)
	if err != nil {
		return s, err
	}
	normal, err := s.Normalize()
	if err != nil {
		return s, outOfRange("study "+s.Name, nil, nil, keys, err)
	}
	return normal, nil
}

// refill gives settings that Normalize has cleared their defaults. They may have an effect after an override.
func refill(s *search.Study) {
	d := search.Default()
	s.Halving, s.Race, s.Peak = cmp.Or(s.Halving, d.Halving), cmp.Or(s.Race, d.Race), cmp.Or(s.Peak, d.Peak)
	s.BNPictures, s.Blocks = cmp.Or(s.BNPictures, d.BNPictures), cmp.Or(s.Blocks, d.Blocks)
	if s.Budget == 0 && s.StageParams == 0 && s.StageMultiplyAdds == 0 {
		s.Tolerance = d.Tolerance
	}
	if s.Schedule != "" {
		s.Drops = d.Drops
	}
}

// overrideAll overrides keys of a study by set, and returns the keys. from is where the study comes from.
func overrideAll(s *search.Study, set []string, from string) (keys []string, err error) {
	for _, assignment := range set {
		key, err := override(s, assignment)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	has := func(key string) bool { return slices.Contains(keys, key) }
	if has("budget") && !has("pairs") {
		s.Pairs = nil
	}
	if has("stage_params") || has("stage_multiply_adds") {
		if s.Systems = nil; !has("pairs") && !has("budget") {
			s.Pairs, s.Budget = nil, 0
		}
	}
	if has("systems") && !has("pairs") && !has("budget") {
		if s.Pairs, s.Budget, s.Variant = nil, 0, ""; !has("kernel") {
			s.Kernel = search.Default().Kernel
		}
	}
	if (has("pairs") || has("budget") || has("families")) && !has("systems") {
		s.Systems = nil
	}
	switch {
	case has("families"):
		if !has("pairs") {
			s.Pairs = nil
		}
	case has("pairs") || has("systems"):
		s.Families, s.PerFamily = nil, 0
	}
	// A kernel of 1 and the variant 1x1 are the same setting.
	if has("kernel") && !has("variant") && s.Variant == space.Pointwise {
		s.Variant = ""
	} else if has("variant") && !has("kernel") && s.Kernel == 1 {
		s.Kernel = search.Default().Kernel
	}
	if len(s.Pairs) > 0 {
		for _, key := range []string{"budget", "tolerance", "all"} {
			switch {
			case has(key) && has("pairs"):
				return nil, setError("%s: it has no effect beside pairs: set either", key)
			case has(key):
				return nil, setError("%s: it has no effect, because %s lists its pairs: set budget too, which drops"+
					" the list",
					key, from)
			}
		}
	}
	for _, key := range keys {
		table, _, inTable := strings.Cut(key, ".")
		if inTable && table != s.Strategy {
			return nil, setError("%s: it has no effect with strategy %s: set strategy=%s too",
				key, cmp.Or(s.Strategy, search.StrategyGrid), table)
		}
	}
	return keys, nil
}

// unknownKey is the error for a key that no study has.
type unknownKey struct {
	key  string
	line int
}

func (e unknownKey) Error() string {
	return fmt.Sprintf("unknown key %q%s", e.key, suggest(e.key, keys()))
}

// keyLines returns the line of each key of a study file. Its error is an unknownKey, begins with a key that is no table,
// or is that of the parser. The decoder does not help here: it ignores the case of keys, so that a file could set epochs
// and EPOCHS, and it does not report lines.
func keyLines(text []byte) (map[string]int, error) {
	lines, known := map[string]int{}, keys()
	var p unstable.Parser
	p.Reset(text)
	table := "" // "race." below [race]
	// note takes the line of one key, or those of a table in braces.
	var note func(prefix string, node *unstable.Node) error
	note = func(prefix string, node *unstable.Node) error {
		at := node.Key()
		var parts []string
		var line int
		for at.Next() {
			if parts = append(parts, string(at.Node().Data)); line == 0 {
				line = p.Shape(at.Node().Raw).Start.Line
			}
		}
		key := prefix + strings.Join(parts, ".")
		if _, twice := lines[key]; !twice {
			lines[key] = line
		}
		isTable := slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(k, key+".") })
		if node.Kind != unstable.KeyValue {
			table = key + "."
		}
		switch {
		case node.Kind == unstable.KeyValue && isTable && node.Value().Kind == unstable.InlineTable:
			for children := node.Value().Children(); children.Next(); {
				if err := note(key+".", children.Node()); err != nil {
					return err
				}
			}
			return nil
		case isTable:
			return nil // the value is no table: the decoder refuses it
		case !slices.Contains(known, key):
			// If there is no such table, the first part of a dotted key is what is unknown.
			if prefix == "" && !slices.ContainsFunc(known,
				func(k string) bool { return strings.HasPrefix(k, parts[0]+".") }) {
				key = parts[0]
			}
			if !slices.Contains(known, key) {
				return unknownKey{key, line}
			}
			if len(parts) > 1 { // the decoder gives its value to the key
				lines[key] = line
				return fmt.Errorf("%s: want %s", key, wanted(key))
			}
		}
		return nil
	}
	for p.NextExpression() {
		node := p.Expression()
		prefix := table
		switch node.Kind {
		case unstable.Comment:
			continue
		case unstable.Table, unstable.ArrayTable:
			prefix = ""
		}
		if err := note(prefix, node); err != nil {
			return lines, err
		}
	}
	if err := p.Error(); err != nil {
		// The decoder stops at the same place, and its error has the line. It reads into a map, because no value before
		// that place is to be refused for its type.
		if e := toml.Unmarshal(text, &map[string]any{}); e != nil {
			err = e
		}
		return nil, err
	}
	return lines, nil
}

// decode sets the fields of a study whose keys are in a text. The error is a DecodeError, or that of the type of one
// value, which begins with its key.
func decode(text []byte, s *search.Study) error {
	return decodeAxes(s, func(into any) error {
		return toml.NewDecoder(bytes.NewReader(text)).EnableUnmarshalerInterface().Decode(into)
	})
}

// located turns an error of decode or keyLines into "file:line: what".
func located(file string, text []byte, lines map[string]int, err error) error {
	line, _ := position(err)
	if line == 0 {
		line = lines[keyOf(err)]
	}
	if line == 0 {
		return fmt.Errorf("%s: %s", file, reason(err))
	}
	why := reason(err)
	if e := (*toml.DecodeError)(nil); errors.As(err, &e) && len(e.Key()) == 0 {
		// The parser cannot read a value, and does not know what the key wants.
		key, _, ok := strings.Cut(lineOf(text, line), "=")
		if want := wanted(strings.TrimSpace(key)); ok && want != "" {
			why = fmt.Sprintf("%s: want %s: %s", strings.TrimSpace(key), want, why)
		}
	}
	return fmt.Errorf("%s:%d: %s", file, line, why)
}

// lineOf returns a line of a text, counted from 1, or "" if the text has no such line.
func lineOf(text []byte, line int) string {
	list := strings.Split(string(text), "\n")
	if line < 1 || line > len(list) {
		return ""
	}
	return list[line-1]
}

// keyOf returns the key of a study file with which an error begins.
func keyOf(err error) string {
	word, _, _ := strings.Cut(err.Error(), " ")
	return strings.TrimSuffix(word, ":")
}

func position(err error) (line, column int) {
	var unknown unknownKey
	var one *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		return unknown.line, 1
	case errors.As(err, &one):
		return one.Position()
	}
	return 0, 0
}

// reason rewrites a decoder's error for people.
func reason(err error) string {
	text := strings.TrimPrefix(err.Error(), "toml: ")
	if noValue.MatchString(text) {
		text = "expected value, not end of line"
	}
	var one *toml.DecodeError
	if !errors.As(err, &one) || len(one.Key()) == 0 {
		return text
	}
	// The decoder names Go types, which a study file does not have.
	key := strings.Join(one.Key(), ".")
	if wanted(key) == "" {
		key = one.Key()[0]
	}
	if want := wanted(key); want != "" && strings.HasPrefix(text, "cannot ") {
		return fmt.Sprintf("%s: want %s", key, want)
	}
	return strings.Join(one.Key(), ".") + ": " + text
}

// noValue is how the decoder says that a line ends where a value should be.
var noValue = regexp.MustCompile(`^unexpected character U\+000[AD] at start of value$`)

// outOfRange turns each complaint of Normalize, which starts with the key, into a SetError, or adds the line of the
// file, of which text is the text.
func outOfRange(file string, text []byte, lines map[string]int, set []string, err error) error {
	complaints := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		complaints = joined.Unwrap()
	}
	for i, c := range complaints {
		key := keyOf(c)
		at := file
		if slices.Contains(set, key) {
			complaints[i] = &SetError{c}
			continue
		}
		if line, ok := lines[key]; ok {
			at = fmt.Sprintf("%s:%d", file, valueLine(text, lines, line, c.Error()))
		}
		complaints[i] = fmt.Errorf("%s: %w", at, c)
	}
	return errors.Join(complaints...)
}

// quoted is a value that a complaint quotes.
var quoted = regexp.MustCompile(`"([^"]+)"`)

// valueLine returns the line of the value that a complaint quotes, in the list that begins in the line of a key. It
// returns the line of the key if there is no such value.
func valueLine(text []byte, lines map[string]int, key int, complaint string) int {
	value := quoted.FindStringSubmatch(complaint)
	if value == nil {
		return key
	}
	next := bytes.Count(text, []byte("\n")) + 2 // the line of the next key
	for _, line := range lines {
		if line > key {
			next = min(next, line)
		}
	}
	for line := key; line < next; line++ {
		if strings.Contains(lineOf(text, line), value[1]) {
			return line
		}
	}
	return key
}

var keyRE = regexp.MustCompile(`^[a-z_]+(\.[a-z_]+)?$`)

// override sets one key of s by "key=value".
func override(s *search.Study, assignment string) (key string, err error) {
	key, value, ok := strings.Cut(assignment, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if !ok || key == "" {
		return "", setError("%q: want key=value, like epochs=10", assignment)
	}
	if !keyRE.MatchString(key) || !slices.Contains(keys(), key) {
		return "", setError("%q: unknown key %q%s", assignment, key, suggest(key, keys()))
	}
	// Only one statement is allowed, so that a value cannot set other keys.
	as := func(value string) error {
		text := []byte(key + " = " + value + "\n")
		var all map[string]any
		if err := toml.Unmarshal(text, &all); err != nil {
			return err
		}
		inner, _ := all[strings.Split(key, ".")[0]].(map[string]any)
		if len(all) != 1 || len(inner) > 1 {
			return errors.New("more than one key")
		}
		next := *s
		// An array replaces the one before, and shares no memory with it.
		next.Pairs, next.Drops, next.Systems, next.Depths, next.Families = nil, nil, nil, nil, nil
		if err := decode(text, &next); err != nil {
			return err
		}
		if key != "pairs" {
			next.Pairs = s.Pairs
		}
		if key != "drops" {
			next.Drops = s.Drops
		}
		if key != "systems" {
			next.Systems = s.Systems
		}
		if key != "depths" {
			next.Depths = s.Depths
		}
		if key != "families" {
			next.Families = s.Families
		}
		*s = next
		return nil
	}
	err = as(value)
	if _, e := strconv.Atoi(value); err != nil && e == nil && key == "seeds" {
		return "", setError("%s", reason(err)) // the number of the seeds, and no list of one seed
	}
	for _, text := range []string{strconv.Quote(value), listOf(value)} {
		if err == nil {
			break
		}
		err = as(text)
	}
	if err == nil {
		return key, nil
	}
	return "", setError("%q: want %s", assignment, wanted(key))
}

// listOf returns the TOML list of values that commas separate: of numbers, or else of strings.
func listOf(values string) string {
	parts, numbers := strings.Split(values, ","), true
	for i, part := range parts {
		parts[i] = strings.TrimSpace(part)
		_, err := strconv.ParseFloat(parts[i], 64)
		numbers = numbers && err == nil
	}
	if !numbers {
		for i, part := range parts {
			parts[i] = strconv.Quote(part)
		}
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// settings lists the keys of a study file with the types of their values, in the order of search.Study. A key in a
// table is "race.alpha".
func settings() (keys []string, types map[string]reflect.Type) {
	types = map[string]reflect.Type{}
	var add func(prefix string, t reflect.Type)
	add = func(prefix string, t reflect.Type) {
		for f := range t.Fields() {
			key := prefix + f.Tag.Get("toml")
			switch {
			case f.Tag.Get("toml") == "-":
			case f.Anonymous: // a part of the settings, which has no key of its own
				add(prefix, f.Type)
			case f.Type.Kind() == reflect.Struct:
				add(key+".", f.Type)
			default:
				keys, types[key] = append(keys, key), f.Type
			}
		}
	}
	add("", reflect.TypeFor[search.Study]())
	return keys, types
}

func keys() []string {
	list, _ := settings()
	return list
}

// wanted describes the type of a key's value; "" for an unknown key.
func wanted(key string) string {
	list, types := settings()
	t, known := types[key]
	if !known {
		for _, k := range list {
			if inner, ok := strings.CutPrefix(k, key+"."); ok {
				return fmt.Sprintf("a table, like [%s] with %s below it", key, inner)
			}
		}
		return ""
	}
	if t.Kind() == reflect.String {
		return "a string in quotes"
	}
	switch {
	case !slices.Contains(search.AxisSettings(), key):
	case search.WholeNumbers(key):
		return "a whole number, or a list of them, like [8, 16]"
	default:
		return "a number, or a list of numbers, like [0.05, 0.1]"
	}
	switch t {
	case reflect.TypeFor[search.Seeds]():
		return "a whole number, like 5, or a list of them, like [5, 6, 7]"
	case reflect.TypeFor[search.Tolerance]():
		return `a number, like 0.024, or a percentage in quotes, like "2.4%"`
	case reflect.TypeFor[int](), reflect.TypeFor[int64]():
		return "a whole number"
	case reflect.TypeFor[float64]():
		return "a number"
	case reflect.TypeFor[bool]():
		return "true or false"
	case reflect.TypeFor[[]int]():
		return "a list of whole numbers, like [8, 20]"
	case reflect.TypeFor[[]string]():
		return `a list of strings, like ["40x2", "64x1"]`
	case reflect.TypeFor[[]float64]():
		return "a list of numbers, like [0.5, 0.75]"
	}
	return ""
}

// otherNames are the names that other programs have for a key.
var otherNames = map[string]string{
	"lr": "learning_rate", "eta": "learning_rate", "rate": "learning_rate", "base_lr": "learning_rate",
	"batch_size": "batch", "batchsize": "batch", "bs": "batch", "minibatch": "batch",
	"num_epochs": "epochs", "n_epochs": "epochs", "max_epoch": "epochs", "epoch": "epochs",
	"wd": "weight_decay", "l2": "weight_decay", "decay": "weight_decay",
	"num_seeds": "seeds", "n_seeds": "seeds", "seed": "seeds", "random_seed": "seeds", "trials": "seeds",
	"milestones": "drops", "lr_schedule": "schedule", "scheduler": "schedule", "lr_scheduler": "schedule",
	"data": "dataset", "data_set": "dataset", "split": "curve", "num_workers": "workers", "networks": "systems",
	"params": "budget", "parameters": "budget", "augmentation": "augment", "ema": "weight_average", "depth": "depths",
	"val": "validation", "validation_split": "validation", "eval_every": "evaluate_every",
}

// suggest is `: did you mean "x"?` if an x in the list is near or is another name for the key, else empty.
func suggest(got string, list []string) string {
	switch x := otherNames[strings.ToLower(got)]; {
	case x != "" && slices.Contains(list, x):
		return fmt.Sprintf(": did you mean %q?", x)
	case strings.EqualFold(got, "optimizer") || strings.EqualFold(got, "optimiser"):
		return ": there is one optimiser, SGD with Nesterov's momentum: set learning_rate, momentum and weight_decay"
	}
	if x := nearest(got, list); x != "" {
		return fmt.Sprintf(": did you mean %q?", x)
	}
	return ""
}

// nearest is the x in the list that differs least, by two letters at most and by less than half; else empty.
func nearest(got string, list []string) string {
	best, least := "", 1+min(2, len(got)/2)
	for _, x := range list {
		if d := distance(strings.ToLower(got), x); d < least {
			best, least = x, d
		}
	}
	return best
}

// distance is the number of letters to insert, drop or change (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
