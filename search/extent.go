package search

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"igcsearch/space"
)

// The extent of a study is the networks that it compares, the values of its axes and the seeds from
// which it trains them. It may grow and shrink after trials were trained. So a study is the same if
// the settings are the same that change the result of a trial; its Fingerprint covers them and
// nothing else.

// identity returns a normalised study with only those settings that change the result of a trial,
// beside the trial's Key. Left out are the extent, which is in the keys, and the settings that say
// which trials are trained, how far, and which accuracy is shown.
func (s Study) identity() Study {
	// A key has the depth and the variant. The variant says the kernel, which is 1 for 1x1 only.
	s.Design = Design{Kernel: usualKernel, Layout: s.Layout, Blocks: s.Blocks}
	axes := Axes{}
	for _, axis := range s.Axes { // a key has the values; that it has them says which settings it covers
		axes = append(axes, Axis{Key: axis.Key})
		axisSettings[axisOrder(axis.Key)].set(&s.Recipe, 0)
	}
	s.Axes = axes
	s.Name, s.Title, s.Split, s.Selection = "", "", "", Selection{}
	return s
}

// Settings returns all settings of a normalised study but Title and Execution, as JSON. Its bytes
// are the same for equal settings.
func (s Study) Settings() []byte {
	s.Title = ""
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // only NaN can fail, and Normalize refuses it
	}
	return b
}

// Fingerprint returns the SHA-256, in hexadecimal, of the settings of a normalised study that
// change the result of a trial. Two studies with the same fingerprint have the same result, bit for
// bit, for a trial with the same Key, if the same arithmetic (Attempt.ISA) trains it.
func (s Study) Fingerprint() string {
	sum := sha256.Sum256(s.identity().Settings())
	return hex.EncodeToString(sum[:])
}

// storedEmpty maps settings that older versions did not have to the value that those versions used.
// Normalize stores this value as "", so that the fingerprints of older studies stay valid.
var storedEmpty = map[string]string{
	"weight_decay_on": DecayWeights, "schedule": ScheduleStep, "bn_statistics": BNRunning,
	"precision": PrecisionF32,
	"strategy":  StrategyGrid, "race.test": RacePooled}

// Diff lists the settings that make two normalised studies different ones, one line for each, for
// example "epochs: 400 there, 20 here". The list is empty if here is the study that is there, which
// may have one value of a setting of which here has a list: see Study.Along.
func Diff(there, here Study) (lines []string) {
	for _, d := range Differences(there.Along(here.Axes).identity(), here.identity()) {
		lines = append(lines, d.String())
	}
	return lines
}

// Changes lists in the same form the settings in which one study differs at two times: its extent,
// and the settings that say what is trained and shown.
func Changes(there, here Study) (lines []string) {
	identity := Differences(there.Along(here.Axes).identity(), here.identity())
	for _, d := range Differences(there, here) {
		same := func(other Difference) bool { return other.Key == d.Key }
		if d.Key != "name" && !slices.ContainsFunc(identity, same) {
			lines = append(lines, d.String())
		}
	}
	return lines
}

// Difference is a setting in which two studies differ, with its value in each.
type Difference struct{ Key, There, Here string }

func (d Difference) String() string {
	return fmt.Sprintf("%s: %s there, %s here", d.Key, d.There, d.Here)
}

// Differences lists the settings in which two normalised studies differ, except Title and Execution.
func Differences(there, here Study) (list []Difference) {
	differ := func(key string, x, y any) {
		if a, b := fmt.Sprint(x), fmt.Sprint(y); a != b {
			none := cmp.Or(storedEmpty[key], "not set")
			list = append(list, Difference{key, cmp.Or(a, none), cmp.Or(b, none)})
		}
	}
	a, b := reflect.ValueOf(there), reflect.ValueOf(here)
	for _, f := range reflect.VisibleFields(a.Type()) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		x, y := a.FieldByIndex(f.Index), b.FieldByIndex(f.Index)
		switch {
		case f.Anonymous || isRunOption(f) || key == "title" || key == "axes":
		case axisOrder(key) >= 0:
			differ(key, there.axisText(key), here.axisText(key))
		case f.Type.Kind() != reflect.Struct:
			differ(key, x.Interface(), y.Interface())
		default:
			for inner := range f.Type.Fields() {
				name, _, _ := strings.Cut(inner.Tag.Get("json"), ",")
				differ(key+"."+name, x.FieldByIndex(inner.Index).Interface(),
					y.FieldByIndex(inner.Index).Interface())
			}
		}
	}
	return list
}

// Keys returns the keys of the trials of a normalised study.
func (s Study) Keys() map[Key]bool {
	keys := map[Key]bool{}
	for _, system := range s.SystemList() {
		for _, seed := range s.Seeds {
			for _, p := range s.Axes.Points() {
				keys[Key{system, p, seed}] = true
			}
		}
	}
	return keys
}

// Join returns the study s with the smallest extent that has the trials of s and of another study:
// the networks of both, at the values of both on each axis, from the seeds of both. Both have the
// same fingerprint along the axes of both. A budget that does not choose all these networks is
// cleared.
func (s Study) Join(other Study) (Study, error) {
	s, other = s.Along(other.Axes), other.Along(s.Axes)
	joined, here, there := s, s.SystemList(), other.SystemList()
	for _, axis := range other.Axes {
		mine, _ := s.Axes.find(axis.Key)
		joined.Axes = joined.Axes.With(axis.Key, union(mine.Values, axis.Values))
	}
	switch n := len(union(here, there)); n {
	case len(here): // s has them all
	case len(there):
		joined.Design = other.Design
	default:
		joined.Design.join(s.Design, other.Design)
	}
	joined.Seeds = union(s.Seeds, other.Seeds)
	return joined.Normalize()
}

// join makes the design compare the networks of a and of b.
func (d *Design) join(a, b Design) {
	d.Budget, d.StageParams, d.StageMultiplyAdds, d.Families, d.PerFamily = 0, 0, 0, nil, 0
	d.Depths = nil
	if len(a.Depths) > 0 && len(b.Depths) > 0 {
		d.Depths = union(a.Depths, b.Depths)
		a.Depths, b.Depths = nil, nil
	}
	if len(a.Systems)+len(b.Systems)+len(a.Depths)+len(b.Depths) == 0 && a.Variant == b.Variant {
		d.Pairs = union(a.Pairs, b.Pairs)
		return
	}
	d.Pairs, d.Systems, d.Variant, d.Kernel = nil, nil, "", usualKernel
	for _, system := range union(a.SystemList(), b.SystemList()) {
		d.Systems = append(d.Systems, system.String())
	}
}

// union returns the values of a and those of b that a lacks.
func union[T comparable](a, b []T) []T {
	list := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(list, x) {
			list = append(list, x)
		}
	}
	return list
}

// Trials returns a pending trial for every network, point of the axes and seed of a normalised
// study; in and classes are the shape of the pictures and the number of classes. The trials are
// ordered by seed, so that a study that is stopped early has results of all networks. Within a seed
// the networks with the most multiply–adds in all epochs come first, so that the workers finish at
// about the same time.
func (s Study) Trials(in space.Shape, classes int) []Trial {
	var costs []Trial
	for _, system := range s.SystemList() {
		net, err := system.Network(s.Plan(in, classes))
		if err != nil {
			panic(err) // Normalize has checked that the network exists
		}
		costs = append(costs, Trial{Key: Key{System: system}, MultiplyAdds: net.MultiplyAdds(), Params: net.Params()})
	}
	trials, err := s.TrialsLike(costs)
	if err != nil {
		panic(err) // costs has every network
	}
	return trials
}

// TrialsLike returns what Trials does. It takes the size of each network from some trial of it
// among others. It returns an error if there is none and the study's pictures are a folder, whose
// number of classes it does not know.
func (s Study) TrialsLike(others []Trial) ([]Trial, error) {
	like := map[space.System]Trial{}
	for _, t := range others {
		like[t.System] = t
	}
	var trials []Trial
	for _, system := range s.SystemList() {
		cost, known := like[system]
		if !known {
			in, classes := s.Shape()
			if classes == 0 {
				return nil, fmt.Errorf("the size of %s is not known without the pictures", system.Label())
			}
			net, err := system.Network(s.Plan(in, classes))
			if err != nil {
				return nil, err
			}
			cost.MultiplyAdds, cost.Params = net.MultiplyAdds(), net.Params()
		}
		for _, p := range s.Axes.Points() {
			epochs := s.At(p).Epochs
			for _, seed := range s.Seeds {
				trials = append(trials, Trial{Key: Key{system, p, seed}, Status: Pending, Epochs: epochs,
					MultiplyAdds: cost.MultiplyAdds, Params: cost.Params})
			}
		}
	}
	slices.SortStableFunc(trials, s.order())
	return trials, nil
}

// SortTrials brings trials of the study into the order of Trials. They may have been planned in
// several steps.
func (s Study) SortTrials(trials []TrialState) {
	order := s.order()
	slices.SortStableFunc(trials, func(a, b TrialState) int { return order(a.Trial, b.Trial) })
}

// work is the number of multiply–adds of the trial, up to a factor that all trials have.
func (t Trial) work() int64 { return t.MultiplyAdds * int64(t.Epochs) }

// order compares two trials by their places in the order of Trials.
func (s Study) order() func(a, b Trial) int {
	place := map[space.System]int{}
	for i, system := range s.SystemList() {
		place[system] = i
	}
	points := map[Point]int{}
	for i, p := range s.Axes.Points() {
		points[p] = i
	}
	return func(a, b Trial) int {
		return cmp.Or(cmp.Compare(a.Seed, b.Seed), cmp.Compare(b.work(), a.work()),
			cmp.Compare(place[a.System], place[b.System]), cmp.Compare(points[a.At], points[b.At]))
	}
}
