package main

import (
	"fmt"
	"slices"
	"strings"

	"igcsearch/search"
)

// point is a flag for values of settings of which a study has lists: "learning_rate=0.05,batch=64". They may also be
// given one by one, each with the flag before it.
type point struct{ search.Point }

func (p *point) String() string { return string(p.Point) }

func (p *point) Type() string { return "SETTING=VALUE,..." }

func (p *point) Set(text string) (err error) {
	if p.Point != "" {
		text = string(p.Point) + "," + text
	}
	p.Point, err = search.ParsePoint(text)
	return err
}

// of returns the one point of the study that has these values. It takes the value of a list of one value as given.
func (p point) of(study search.Study) (search.Point, error) {
	points, err := pointsAt(study, p.Point)
	if err == nil && len(points) > 1 {
		err = usageError{fmt.Errorf("%s has the lists %s: say by --at which trial is meant, like --at %s", study.Name,
			lists(study.Axes), string(points[0]))}
	}
	if err != nil {
		return "", err
	}
	return points[0], nil
}

// ofLists returns for each of two studies the values of the settings of which it has a list.
func (p point) ofLists(a, b search.Study) (parts [2]point, err error) {
	for _, key := range search.AxisSettings() {
		x, given := p.Value(key)
		if given && !a.Axes.Has(key) && !b.Axes.Has(key) {
			return parts, usageError{fmt.Errorf("--at %s: neither %s nor %s has a list of %s", string(p.Point), a.Name, b.Name, key)}
		}
		for i, study := range []search.Study{a, b} {
			if given && study.Axes.Has(key) {
				parts[i].Point = parts[i].With(key, x)
			}
		}
	}
	return parts, nil
}

// pointsAt returns the points of a study that have some values.
func pointsAt(study search.Study, part search.Point) (list []search.Point, err error) {
	for _, p := range study.Axes.Points() {
		if p.In(part) {
			list = append(list, p)
		}
	}
	if len(list) > 0 {
		return list, nil
	}
	has := "it has no lists of settings"
	if len(study.Axes) > 0 {
		has = "it has " + lists(study.Axes)
	}
	return nil, usageError{fmt.Errorf("--at %s: %s has no trials there: %s", string(part), study.Name, has)}
}

// lists names axes: "learning_rate = [0.05, 0.1], batch = [16, 32]".
func lists(axes search.Axes) string {
	var texts []string
	for _, axis := range axes {
		texts = append(texts, axis.String())
	}
	return strings.Join(texts, ", ")
}

// listAdvice says how one study can have the settings of both sides of a conflict, by lists. It is "" if other settings
// differ than those that can be lists.
func listAdvice(diff []string) string {
	var sets []string
	for _, line := range diff {
		key, values, _ := strings.Cut(line, ": ")
		there, here, ok := strings.Cut(strings.TrimSuffix(values, " here"), " there, ")
		if !ok || !slices.Contains(search.AxisSettings(), key) || strings.HasPrefix(here, "[") {
			return ""
		}
		if there == "a list" {
			sets = append(sets, fmt.Sprintf("--set %s=[%s]", key, here))
		} else {
			sets = append(sets, fmt.Sprintf("--set %s=%s,%s", key, there, here))
		}
	}
	if len(sets) == 0 {
		return ""
	}
	return "make it a list, which keeps what is trained (" + strings.Join(sets, " ") + ")"
}
