package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"igcsearch/cmd/igcsearch/cluster"
	"igcsearch/plots"
	"igcsearch/search"
	"igcsearch/space"
)

// choice is a flag that takes one of a few values.
type choice struct {
	value *string
	of    []string
}

func (c choice) String() string { return *c.value }
func (c choice) Type() string   { return strings.Join(c.of, "|") }
func (c choice) Set(s string) error {
	if !slices.Contains(c.of, s) {
		return fmt.Errorf("want %s", strings.Join(c.of, ", "))
	}
	*c.value = s
	return nil
}

// addChoice adds a choice flag; its first value is the default.
func addChoice(cmd *cobra.Command, value *string, name, usage string, of ...string) {
	*value = of[0]
	cmd.Flags().Var(choice{value, of}, name, usage)
	complete := cobra.FixedCompletions(of, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc(name, complete); err != nil {
		panic(err) // the flag exists: it was added above
	}
}

// addSplit adds a flag for one of the splits that are evaluated, without a default.
func addSplit(cmd *cobra.Command, value *string, name, usage string) {
	addChoice(cmd, value, name, usage, search.SplitTest, search.SplitValidation)
	*value = ""
	hideDefaults(cmd, name)
}

// addShown adds the flag --split.
func addShown(cmd *cobra.Command, value *string) {
	addSplit(cmd, value, "split", "the pictures whose accuracy is shown (default what the study says)")
}

// fraction is a flag given as "2.4%" or 0.024.
type fraction float64

func (f *fraction) String() string {
	return strconv.FormatFloat(100*float64(*f), 'g', 12, 64) + "%"
}
func (f *fraction) Type() string { return "fraction" }
func (f *fraction) Set(s string) error {
	number, isPercent := strings.CutSuffix(strings.TrimSpace(s), "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if isPercent {
		v /= 100
	}
	if err != nil || !(v >= 0 && v < 1) {
		return errors.New("want 0 to 100 percent, like 2.4% or 0.024")
	}
	*f = fraction(v)
	return nil
}

// pair is a flag for one pair, "40x2".
type pair struct{ space.Pair }

func (p *pair) String() string { return spell(p.Pair) }
func (p *pair) Type() string   { return "LxM" }
func (p *pair) Set(s string) (err error) {
	p.Pair, err = parsePair(s)
	return err
}

// pairs is a flag for a list, "40x2,64x1".
type pairs []space.Pair

func (p *pairs) String() string {
	texts := make([]string, len(*p))
	for i, one := range *p {
		texts[i] = spell(one)
	}
	return strings.Join(texts, ",")
}
func (p *pairs) Type() string { return "LxM,..." }
func (p *pairs) Set(s string) error {
	var list pairs
	for _, text := range strings.Split(s, ",") {
		one, err := parsePair(strings.TrimSpace(text))
		if err != nil {
			return err
		}
		list = append(list, one)
	}
	*p = list
	return nil
}

// twoNumbers matches what looks like a pair, in range or not.
var twoNumbers = regexp.MustCompile(`^\D?\d+\D\d+$`)

func parsePair(text string) (space.Pair, error) {
	p, err := space.ParsePair(text)
	if err != nil && !twoNumbers.MatchString(text) {
		err = errors.New("want L and M, like 40x2")
	}
	return p, err
}

// spell writes a pair as flags and study files do, and "" for no pair.
func spell(p space.Pair) string {
	if p == (space.Pair{}) {
		return ""
	}
	return fmt.Sprintf("%dx%d", p.L, p.M)
}

// positive is a flag for a whole number from 1.
type positive int

func (n *positive) String() string { return strconv.Itoa(int(*n)) }
func (n *positive) Type() string   { return "N" }
func (n *positive) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < 1 || v > 1_000_000_000 {
		return errors.New("want a whole number from 1 to 1000000000")
	}
	*n = positive(v)
	return nil
}

// automatic is a flag for a whole number from 1, or "auto".
type automatic struct {
	n    int // 0: not given, or auto
	auto bool
}

func (a *automatic) String() string {
	if a.n > 0 {
		return strconv.Itoa(a.n)
	}
	return "auto"
}
func (a *automatic) Type() string { return "N|auto" }
func (a *automatic) Set(s string) error {
	if s == "auto" {
		*a = automatic{auto: true}
		return nil
	}
	var n positive
	if err := n.Set(s); err != nil {
		return fmt.Errorf("%w, or auto", err)
	}
	*a = automatic{n: int(n)}
	return nil
}

// defaultDB is the database of a command without --db.
const defaultDB = "igcsearch.db"

func addDB(cmd *cobra.Command, value *string) {
	cmd.Flags().StringVar(value, "db", defaultDB, "the database `FILE`")
}

// addSet adds the flag --set; what says what it sets.
func addSet(cmd *cobra.Command, value *[]string, what string) {
	cmd.Flags().StringArrayVar(value, "set", nil, what+", as `key=value`; may be repeated")
}

// addWorkers adds the flag --workers of a process that trains.
func addWorkers(cmd *cobra.Command, value *automatic) {
	cmd.Flags().Var(value, "workers", "trials at once; auto is one for each core, and on GPUs as many as is fastest "+
		"(default what the study says, or auto)")
	hideDefaults(cmd, "workers")
}

// hideDefaults leaves the defaults of flags out of the help, because the usage
// texts describe them.
func hideDefaults(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		cmd.Flag(name).DefValue = ""
	}
}

func addData(cmd *cobra.Command, value *string) {
	cmd.Flags().StringVar(value, "data", os.Getenv("IGCSEARCH_DATA"),
		"the `DIR` with the pictures (default $IGCSEARCH_DATA)")
	hideDefaults(cmd, "data") // the help is the same in every environment
}

var _ = []pflag.Value{
	choice{}, (*fraction)(nil), (*pair)(nil), (*pairs)(nil), (*positive)(nil), (*automatic)(nil), (*device)(nil),
	(*seeds)(nil), (*cluster.Name)(nil), (*cluster.Quantity)(nil), (*size)(nil), (*limits)(nil), (*labels)(nil),
}

// limits is a flag for the range of an axis, "40:60", of which one end may be left to the figure, "40:".
type limits struct{ plots.Limits }

func (l *limits) String() string {
	if l.Limits == (plots.Limits{}) {
		return ""
	}
	end := func(v float64) string {
		if math.IsNaN(v) {
			return ""
		}
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return end(l.Low) + ":" + end(l.High)
}
func (l *limits) Type() string { return "LOW:HIGH" }
func (l *limits) Set(text string) error {
	low, high, ok := strings.Cut(text, ":")
	ends := plots.Limits{Low: math.NaN(), High: math.NaN()}
	var err1, err2 error
	if low != "" {
		ends.Low, err1 = strconv.ParseFloat(low, 64)
	}
	if high != "" {
		ends.High, err2 = strconv.ParseFloat(high, 64)
	}
	if !ok || low+high == "" || err1 != nil || err2 != nil || ends.Low >= ends.High ||
		low != "" && !(math.Abs(ends.Low) <= math.MaxFloat64) || high != "" && !(math.Abs(ends.High) <= math.MaxFloat64) || math.IsInf(ends.High-ends.Low, 0) {
		return errors.New("want the lower and the upper end, like 40:60, 40: or :60")
	}
	l.Limits = ends
	return nil
}

// labels is a flag that may be repeated, "STUDY=TEXT": what studies are called in figures and tables.
type labels map[string]string

func (l *labels) String() string {
	var texts []string
	for _, study := range slices.Sorted(maps.Keys(*l)) {
		texts = append(texts, study+"="+(*l)[study])
	}
	return strings.Join(texts, ",")
}
func (l *labels) Type() string { return "STUDY=TEXT" }
func (l *labels) Set(text string) error {
	study, label, ok := strings.Cut(text, "=")
	if !ok || study == "" || label == "" {
		return errors.New(`want a study and its label, like fig3a="Budget (i)"`)
	}
	if *l == nil {
		*l = labels{}
	}
	if _, twice := (*l)[study]; twice {
		return fmt.Errorf("%s has a label already", study)
	}
	(*l)[study] = label
	return nil
}

// addLabels adds the flag --label.
func addLabels(cmd *cobra.Command, value *labels) {
	cmd.Flags().Var(value, "label", `what a study is called, like fig3a="Budget (i)"; may be repeated`)
}

// check returns an error if a label is of a study that is not among these.
func (l labels) check(studies []string) error {
	for _, study := range slices.Sorted(maps.Keys(l)) {
		if !slices.Contains(studies, study) {
			return fmt.Errorf("--label %s: no STUDY of this name is given", quote(study))
		}
	}
	return nil
}

// size is a flag "3.25x2.2in" or "8x6cm"; zero is the default of the figure.
type size struct{ width, height float64 } // inches

func (s *size) String() string {
	if *s == (size{}) {
		return ""
	}
	return fmt.Sprintf("%gx%gin", s.width, s.height)
}
func (s *size) Type() string { return "WxH" }
func (s *size) Set(text string) error {
	number, inches := strings.CutSuffix(text, "in")
	unit := 1.
	if !inches {
		var cm bool
		if number, cm = strings.CutSuffix(text, "cm"); cm {
			unit = 1 / 2.54
		}
	}
	w, h, ok := strings.Cut(number, "x")
	width, err1 := strconv.ParseFloat(w, 64)
	height, err2 := strconv.ParseFloat(h, 64)
	width, height = width*unit, height*unit
	if !ok || err1 != nil || err2 != nil || !(width >= 1 && width <= 40 && height >= 1 && height <= 40) {
		return errors.New("want 1 to 40 in each way, like 3.25x2.2in or 8x6cm")
	}
	*s = size{width, height}
	return nil
}
