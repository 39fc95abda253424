package search

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// An axis is a setting of the recipe for which the study has a list of values. The study crosses
// its networks with the values of all its axes. So the value is part of a trial's Key, like the
// network and the seed, and the list is part of the study's extent: it may grow and shrink.

// axisSettings are the settings that can be axes, in the order of Recipe.
var axisSettings = []struct {
	key   string
	whole bool // only whole numbers
	get   func(*Recipe) float64
	set   func(*Recipe, float64)
}{
	{"epochs", true, func(r *Recipe) float64 { return float64(r.Epochs) },
		func(r *Recipe, x float64) { r.Epochs = int(x) }},
	{"batch", true, func(r *Recipe) float64 { return float64(r.Batch) },
		func(r *Recipe, x float64) { r.Batch = int(x) }},
	{"learning_rate", false, func(r *Recipe) float64 { return r.LearningRate },
		func(r *Recipe, x float64) { r.LearningRate = x }},
	{"weight_decay", false, func(r *Recipe) float64 { return r.WeightDecay },
		func(r *Recipe, x float64) { r.WeightDecay = x }},
}

// AxisSettings lists the keys of the settings that can be axes, in the order in which Axes and Point
// have them.
func AxisSettings() (keys []string) {
	for _, s := range axisSettings {
		keys = append(keys, s.key)
	}
	return keys
}

// axisOrder returns the place of a key in axisSettings, or −1.
func axisOrder(key string) int { return slices.Index(AxisSettings(), key) }

// WholeNumbers reports whether the values of a setting that can be an axis are whole numbers.
func WholeNumbers(key string) bool {
	i := axisOrder(key)
	return i >= 0 && axisSettings[i].whole
}

// Axis is a setting with a list of values.
type Axis struct {
	Key    string    `json:"setting"` // one of AxisSettings
	Values []float64 `json:"values"`  // in rising order
}

// String returns the axis as a study file has it, for example "learning_rate = [0.05, 0.1]".
func (a Axis) String() string { return a.Key + " = " + a.list() }

func (a Axis) list() string {
	if len(a.Values) == 0 {
		return "a list" // of which only the extent says the values
	}
	texts := make([]string, len(a.Values))
	for i, x := range a.Values {
		texts[i] = number(x)
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// number returns the shortest text that stands for exactly this number. −0 is 0.
func number(x float64) string { return strconv.FormatFloat(positive(x), 'g', -1, 64) }

// positive returns 0 for −0, and other numbers as they are.
func positive(x float64) float64 {
	if x == 0 {
		return 0
	}
	return x
}

// Axes are the axes of a study, in the order of AxisSettings. A study without a list has none. A
// list of one value is an axis too.
type Axes []Axis

// find returns the axis of a setting.
func (a Axes) find(key string) (Axis, bool) {
	i := slices.IndexFunc(a, func(x Axis) bool { return x.Key == key })
	if i < 0 {
		return Axis{}, false
	}
	return a[i], true
}

// Has reports whether a setting is an axis.
func (a Axes) Has(key string) bool {
	_, ok := a.find(key)
	return ok
}

// With returns the axes with the values of a setting, one of AxisSettings; without values it is no
// axis.
func (a Axes) With(key string, values []float64) Axes {
	a = slices.DeleteFunc(slices.Clone(a), func(x Axis) bool { return x.Key == key })
	if len(values) > 0 {
		a = append(a, Axis{key, slices.Clone(values)})
	}
	slices.SortFunc(a, func(x, y Axis) int { return cmp.Compare(axisOrder(x.Key), axisOrder(y.Key)) })
	return a
}

// Including returns the axes with one more value of a setting, unless they have it.
func (a Axes) Including(key string, x float64) Axes {
	axis, _ := a.find(key)
	return a.With(key, union(axis.Values, []float64{x}))
}

// Point is a place on the axes of a study: a value for each axis, for example
// "batch=64,learning_rate=0.05", in the order of AxisSettings. The one point of a study without axes
// is "".
type Point string

// ParsePoint reads a point that people have written: the settings may have any order.
func ParsePoint(text string) (Point, error) {
	var p Point
	for part := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(part) == "" && text == "" {
			return "", nil
		}
		key, value, ok := strings.Cut(part, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok || axisOrder(key) < 0 {
			return "", fmt.Errorf("%q: want a value of %s, like learning_rate=0.05", part,
				strings.Join(AxisSettings(), ", "))
		}
		x, err := strconv.ParseFloat(value, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) || WholeNumbers(key) && x != math.Trunc(x) {
			want := "a number"
			if WholeNumbers(key) {
				want = "a whole number"
			}
			return "", fmt.Errorf("%s: %q is not %s", key, value, want)
		}
		if _, twice := p.Value(key); twice {
			return "", fmt.Errorf("%s is given twice", key)
		}
		p = p.With(key, x)
	}
	return p, nil
}

// Value returns the value of a setting; ok is false if the point has none.
func (p Point) Value(key string) (x float64, ok bool) {
	for part := range strings.SplitSeq(string(p), ",") {
		if text, found := strings.CutPrefix(part, key+"="); found {
			x, err := strconv.ParseFloat(text, 64)
			return x, err == nil
		}
	}
	return 0, false
}

// With returns the point with a value of a setting, one of AxisSettings.
func (p Point) With(key string, x float64) Point {
	var parts []string
	for _, k := range AxisSettings() {
		value, ok := p.Value(k)
		if k == key {
			value, ok = x, true
		}
		if ok {
			parts = append(parts, k+"="+number(value))
		}
	}
	return Point(strings.Join(parts, ","))
}

// Without returns the point without the value of a setting.
func (p Point) Without(key string) Point {
	var rest Point
	for _, k := range AxisSettings() {
		if x, ok := p.Value(k); ok && k != key {
			rest = rest.With(k, x)
		}
	}
	return rest
}

// In reports whether the point has all the values of another one, which may leave settings out.
func (p Point) In(part Point) bool {
	for _, k := range AxisSettings() {
		want, ok := part.Value(k)
		if got, has := p.Value(k); ok && (!has || got != want) {
			return false
		}
	}
	return true
}

// String returns the point for people to read, for example "batch 64, learning_rate 0.05".
func (p Point) String() string {
	return strings.NewReplacer("=", " ", ",", ", ").Replace(string(p))
}

// Points returns every point of the axes, in the order in which figures and tables have them: the
// values of the last axis change first.
func (a Axes) Points() []Point {
	points := []Point{""}
	for _, axis := range a {
		var next []Point
		for _, p := range points {
			for _, x := range axis.Values {
				next = append(next, p.With(axis.Key, x))
			}
		}
		points = next
	}
	return points
}

// HasPoint reports whether trials of the study, or of another extent of it, can lie at a point: it
// has a value for each axis, and no other, in the form of Point.With.
func (s Study) HasPoint(p Point) bool {
	var again Point
	for _, axis := range s.Axes {
		if x, ok := p.Value(axis.Key); ok {
			again = again.With(axis.Key, x)
		} else {
			return false
		}
	}
	return again == p
}

// At returns a normalised study with the recipe of the trials at a point. It has no axes: a trainer
// gets it.
func (s Study) At(p Point) Study {
	s.Axes = nil
	for _, setting := range axisSettings {
		if x, ok := p.Value(setting.key); ok {
			setting.set(&s.Recipe, x)
		}
	}
	if s.BNStatistics != "" {
		s.BNPictures = max(s.BNPictures, s.Batch) // as Recipe.normalize does
	}
	return s
}

// Along returns a normalised study whose settings that are axes of another one are axes too, each
// with the one value that the setting has. Its trials are the same, with longer keys, and have the
// same results.
func (s Study) Along(other Axes) Study {
	for _, axis := range other {
		if _, ok := s.Axes.find(axis.Key); !ok {
			s.Axes = s.Axes.With(axis.Key, []float64{axisSettings[axisOrder(axis.Key)].get(&s.Recipe)})
		}
	}
	return s
}

// KeyAlong returns the key that a trial of the study has in s.Along(other).
func (s Study) KeyAlong(k Key, other Axes) Key {
	for _, axis := range other {
		if _, ok := k.At.Value(axis.Key); !ok {
			k.At = k.At.With(axis.Key, axisSettings[axisOrder(axis.Key)].get(&s.Recipe))
		}
	}
	return k
}

// KeyWithin returns the key that a trial has in the study, which may lack axes that the key has a
// value of. ok is false if the study trains with another value.
func (s Study) KeyWithin(k Key) (key Key, ok bool) {
	for i, name := range AxisSettings() {
		x, has := k.At.Value(name)
		if _, axis := s.Axes.find(name); has && !axis {
			if x != axisSettings[i].get(&s.Recipe) {
				return k, false
			}
			k.At = k.At.Without(name)
		}
	}
	return k, true
}

// Values returns the values of a setting that can be an axis, and whether it is one.
func (s Study) Values(key string) (values []float64, isAxis bool) {
	if axis, ok := s.Axes.find(key); ok {
		return slices.Clone(axis.Values), true
	}
	return []float64{axisSettings[axisOrder(key)].get(&s.Recipe)}, false
}

// SetValue gives a setting that can be an axis one value, so that it is none.
func (s *Study) SetValue(key string, x float64) {
	s.Axes = s.Axes.With(key, nil)
	axisSettings[axisOrder(key)].set(&s.Recipe, x)
}

// axisText returns the value of a setting that can be an axis, or its list of values.
func (s Study) axisText(key string) string {
	if axis, ok := s.Axes.find(key); ok {
		return axis.list()
	}
	return number(axisSettings[axisOrder(key)].get(&s.Recipe))
}

const (
	maxAxisValues = 100
	maxPoints     = 1000
)

// normalizeAxes checks the axes, orders their values, and gives each setting that is an axis the
// largest of its values: what holds for the largest, like the memory of a batch, holds for all.
func (s *Study) normalizeAxes(c *checker) {
	points := 1
	var axes Axes
	for _, axis := range s.Axes {
		i := axisOrder(axis.Key)
		if i < 0 {
			c.check(false, "%s: want %s", axis, strings.Join(AxisSettings(), ", "))
			continue
		}
		values := slices.Clone(axis.Values) // copies of the study share the old slice, which must not change
		for k := range values {
			values[k] = positive(values[k])
		}
		slices.Sort(values)
		if n := len(values); n == 0 || n > maxAxisValues {
			c.check(false, "%s: %d values: want 1 to %d", axis.Key, n, maxAxisValues)
			continue
		}
		for k, x := range values {
			whole := !axisSettings[i].whole || x == math.Trunc(x) && math.Abs(x) < 1<<31
			c.check(whole, "%s %g: want whole numbers", axis.Key, x)
			c.check(k == 0 || x != values[k-1], "%s: %s is listed twice", axis.Key, number(x))
			r := s.Recipe
			axisSettings[i].set(&r, x)
			var one checker
			if r.normalize(&one); whole {
				for _, err := range one.errs {
					if strings.HasPrefix(err.Error(), axis.Key+" ") { // other settings have been checked
						c.errs = append(c.errs, err)
					}
				}
			}
		}
		axisSettings[i].set(&s.Recipe, values[len(values)-1])
		points *= len(values)
		axes = axes.With(axis.Key, values)
	}
	c.check(points <= maxPoints, "%s: %d combinations of the lists: want at most %d", axesKey(s.Axes), points, maxPoints)
	c.check(len(axes) == len(s.Axes) || len(c.errs) > 0, "%s: it is listed twice", axesKey(s.Axes))
	c.check(len(axes) == 0 || s.Strategy == "" || s.Strategy == StrategyGrid,
		"strategy %s: it compares networks, each with one recipe: give %s one value, or use strategy grid", s.Strategy,
		axesKey(axes))
	s.Axes = axes
}

// axesKey returns the key of the first axis, with which a complaint begins.
func axesKey(a Axes) string {
	if len(a) == 0 {
		return "axes"
	}
	return a[0].Key
}
