package store

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"igcsearch/search"
	"igcsearch/space"
)

// storedStudy is a row of table study as findings.go examines it.
type storedStudy struct {
	id                        int64
	name                      string
	settings                  []byte
	fingerprint               string
	created, updated, changes int64
	keepBest                  bool
	givenOut                  []byte
	changed                   int64 // the largest of its trials

	search.Study // of the settings, once they are known to be sound
}

// findStudyFaults finds what is wrong with the studies and what of their trials does not follow from the settings.
func findStudyFaults(ctx context.Context, tx *sql.Tx, names map[int64]string) (list []finding, err error) {
	var studies []storedStudy
	err = each(ctx, tx, `SELECT id, name, settings, fingerprint, created, updated, changes, keep_best, given_out,
			coalesce((SELECT max(changed) FROM trial WHERE study = study.id), 0)
		FROM study ORDER BY id`, nil, func(rows *sql.Rows) error {
		var s storedStudy
		err := rows.Scan(&s.id, &s.name, &s.settings, &s.fingerprint, &s.created, &s.updated, &s.changes, &s.keepBest,
			&s.givenOut, &s.changed)
		studies = append(studies, s)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, s := range studies {
		list = append(list, s.rowFaults()...)
		faults, sound := s.settingsFaults()
		if list = append(list, faults...); !sound {
			continue
		}
		for _, find := range []func(context.Context, *sql.Tx, map[int64]string) ([]finding, error){
			s.planFaults, s.totalFaults, s.rateFaults,
		} {
			faults, err := find(ctx, tx, names)
			if err != nil {
				return nil, err
			}
			list = append(list, faults...)
		}
	}
	return list, nil
}

// fault is a finding of the study.
func (s *storedStudy) fault(repair string, m mend, format string, a ...any) finding {
	return finding{Finding: Finding{"study " + plainName(s.name) + ": " + fmt.Sprintf(format, a...), repair},
		study: s.id, mend: m}
}

// rowFaults finds what is wrong with the row of the study, its settings apart.
func (s *storedStudy) rowFaults() (list []finding) {
	if s.created < 1 || s.updated < s.created || s.updated > lastMoment {
		list = append(list, s.fault("they would become those of now", inSQL(fmt.Sprintf(`UPDATE study SET created =
			iif(created BETWEEN 1 AND %[1]d, created, %[1]d), updated = %[1]d WHERE id = ?1`, now())),
			"its times are out of order or out of range"))
	}
	if s.changed > s.changes {
		list = append(list, s.fault("it would go on from there",
			inSQL(`UPDATE study SET changes = (SELECT max(changed) FROM trial WHERE study = ?1) WHERE id = ?1`),
			"it counts %d changes, but a trial has change %d", s.changes, s.changed))
	}
	if s.givenOut != nil {
		var run search.Study
		if err := run.SetRun(s.givenOut); err != nil {
			list = append(list, s.fault("it would be given out no more",
				inSQL(`UPDATE study SET given_out = NULL WHERE id = ?1`),
				"a coordinator cannot give it out: %s", brief(err.Error())))
		}
	}
	return list
}

// settingsFaults finds what is wrong with the settings of the study. They are sound if the study can be known from
// them.
func (s *storedStudy) settingsFaults() (list []finding, sound bool) {
	const lost = "only a copy of the database from before that can help"
	parsed, err := parseSettings(s.settings)
	if err != nil {
		return []finding{s.fault("", nil, "%v: %s", err, lost)}, false
	}
	parsed.Name = s.name
	s.Study, err = parsed.Normalize()
	if err != nil {
		return []finding{s.fault("", nil, "its settings are wrong: %s: %s", brief(err.Error()), lost)}, false
	}
	if s.Fingerprint() != s.fingerprint {
		return []finding{s.fault("", nil,
			"its settings do not fit their fingerprint, so they are not those that its trials were trained with: %s",
			lost)}, false
	}
	if !bytes.Equal(s.Settings(), s.settings) {
		text := s.Settings()
		put := func(ctx context.Context, tx *sql.Tx, id, _ int64) error {
			return exec(ctx, tx, `UPDATE study SET settings = ? WHERE id = ?`, string(text), id)
		}
		list = append(list, s.fault("they would be brought into it", put,
			"its settings are not in the form that igcsearch stores"))
	}
	if s.keepBest && s.Validation == 0 {
		list = append(list, s.fault("none would be kept", inSQL(`UPDATE study SET keep_best = 0 WHERE id = ?1`),
			"it keeps the checkpoint of the best validation accuracy, but holds out no pictures"))
	}
	return list, true
}

// storedPlan is a row of table trial: what the plan says of the trial.
type storedPlan struct {
	id           int64
	system       string
	point        search.Point
	l, m         int
	seed         int
	epochs       int
	multiplyAdds int64
	params       int
	attempts     int
}

// planFaults finds trials of the study that are missing, and those that are not what the settings say.
func (s *storedStudy) planFaults(ctx context.Context, tx *sql.Tx, names map[int64]string) (list []finding, err error) {
	var rows []storedPlan
	there := map[search.Key]bool{}
	err = each(ctx, tx, `SELECT id, system, point, coalesce(L, 0), coalesce(M, 0), seed, epochs, multiply_adds, params,
			(SELECT count(*) FROM attempt WHERE trial = trial.id)
		FROM trial WHERE study = ? ORDER BY id`, []any{s.id}, func(r *sql.Rows) error {
		var t storedPlan
		err := r.Scan(&t.id, &t.system, &t.point, &t.l, &t.m, &t.seed, &t.epochs, &t.multiplyAdds, &t.params,
			&t.attempts)
		rows = append(rows, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	in, classes := s.Shape()
	if classes == 0 {
		classes = s.classes(in, rows)
	}
	for _, t := range rows {
		system, err := space.ParseSystem(t.system)
		var network space.Network
		if err == nil && classes > 0 {
			network, err = system.Network(s.Plan(in, classes))
		}
		if err == nil && (system.String() != t.system || t.seed < 0 || !s.HasPoint(t.point)) {
			err = errors.New("no study has such a one")
		}
		if err != nil {
			f := finding{Finding: Finding{Text: fmt.Sprintf("%s is no trial of the study: %s", names[t.id],
				brief(err.Error()))}, trial: t.id}
			if t.attempts == 0 {
				f.Repair, f.mend = "it would be removed", inSQL(`DELETE FROM trial WHERE id = ?1`)
			}
			list = append(list, f)
			continue
		}
		there[search.Key{System: system, At: t.point, Seed: t.seed}] = true
		want := storedPlan{t.id, t.system, t.point, system.Pair().L, system.Pair().M, t.seed, s.At(t.point).Epochs,
			t.multiplyAdds, t.params, t.attempts}
		if classes > 0 {
			want.multiplyAdds = network.MultiplyAdds()
			if t.params != 0 { // 0 is unknown
				want.params = network.Params()
			}
		}
		if t != want {
			list = append(list, finding{Finding{names[t.id] + " is stored with " + t.differences(want),
				"that would be stored"}, 0, t.id, 0, want.put})
		}
	}
	if classes > 0 {
		for _, t := range s.Trials(in, classes) {
			if !there[t.Key] {
				list = append(list, s.fault("it would be planned again", s.plan(t),
					"%v is missing, a trial of its plan", t.Key))
			}
		}
	}
	return list, nil
}

// differences says what a trial is stored with, and what it should be.
func (t storedPlan) differences(want storedPlan) string {
	var is, should []string
	for _, f := range []struct {
		what      string
		got, want int64
	}{
		{"L", int64(t.l), int64(want.l)}, {"M", int64(t.m), int64(want.m)},
		{"epochs", int64(t.epochs), int64(want.epochs)},
		{"multiply-adds", t.multiplyAdds, want.multiplyAdds},
		{"parameters", int64(t.params), int64(want.params)},
	} {
		if f.got != f.want {
			is = append(is, fmt.Sprintf("%s %d", f.what, f.got))
			should = append(should, fmt.Sprintf("%s %d", f.what, f.want))
		}
	}
	return strings.Join(is, ", ") + ", but by the settings it has " + strings.Join(should, ", ")
}

// put stores what the settings say of a trial. What was trained beyond its last epoch is another finding.
func (t storedPlan) put(ctx context.Context, tx *sql.Tx, id, _ int64) error {
	return exec(ctx, tx, `UPDATE trial SET L = nullif(?, 0), M = nullif(?, 0), epochs = ?, until = min(until, ?),
		multiply_adds = ?, params = ? WHERE id = ?`, t.l, t.m, t.epochs, t.epochs, t.multiplyAdds, t.params, id)
}

// plan is the mend of a missing trial.
func (s *storedStudy) plan(t search.Trial) mend {
	return func(ctx context.Context, tx *sql.Tx, study, _ int64) error {
		_, err := putTrials(ctx, tx, study, []search.Trial{t}, false)
		return err
	}
}

// classes is the number of classes of the pictures of a folder, by the parameters of most trials; 0 if that is not
// known. The parameters of the linear layer rise by the same number with each class.
func (s *storedStudy) classes(in space.Shape, rows []storedPlan) int {
	votes := map[int]int{}
	for _, t := range rows {
		system, err := space.ParseSystem(t.system)
		if err != nil || t.params == 0 {
			continue
		}
		one, err1 := system.Network(s.Plan(in, 1))
		two, err2 := system.Network(s.Plan(in, 2))
		if err1 != nil || err2 != nil {
			continue
		}
		more, each := t.params-one.Params(), two.Params()-one.Params()
		if more >= 0 && more%each == 0 && more/each < 100_000 {
			votes[1+more/each]++
		}
	}
	best := 0
	for n, k := range votes {
		if k > votes[best] || k == votes[best] && n < best {
			best = n
		}
	}
	return best
}

// ofStudy is SQL: the epochs e of a study, ?1, with their trials t and attempts a.
const ofStudy = ` FROM trial t JOIN epoch e ON e.trial = t.id JOIN attempt a ON a.id = e.attempt AND a.trial = t.id
	WHERE t.study = ?1 AND e.number BETWEEN 1 AND t.epochs`

// totalFaults finds epochs that count other pictures than the study has. How many these are in all only the pictures
// tell, so what most epochs have is right, within the settings. Trials of another batch leave out another rest of the
// training pictures, so each point is looked at alone.
func (s *storedStudy) totalFaults(ctx context.Context, tx *sql.Tx, names map[int64]string) (list []finding, err error) {
	points, err := s.points(ctx, tx)
	for _, p := range points {
		if err == nil {
			var faults []finding
			faults, err = s.totalFaultsAt(ctx, tx, names, p)
			list = append(list, faults...)
		}
	}
	return list, err
}

// points lists the points of the stored trials.
func (s *storedStudy) points(ctx context.Context, tx *sql.Tx) ([]string, error) {
	return texts(ctx, tx, `SELECT DISTINCT point FROM trial WHERE study = ? ORDER BY 1`, s.id)
}

func (s *storedStudy) totalFaultsAt(
	ctx context.Context, tx *sql.Tx, names map[int64]string, point string,
) (list []finding, err error) {
	const at = ofStudy + ` AND t.point = ?3`
	evaluated := fmt.Sprintf(` AND (e.number %% %d = 0 OR e.number = t.epochs)`, s.EvaluateEvery)
	orAll := func(n int) int { return cmp.Or(n, 1<<62) }
	for _, split := range []struct {
		name, column, when string
		most               int
	}{
		{"training", "e.train_total", "", orAll(s.TrainPictures)},
		{"validation", "e.validation_total", evaluated, s.Validation},
		{"test", "e.test_total", evaluated, orAll(s.TestPictures)},
	} {
		total := split.column
		var usual int64
		err := tx.QueryRowContext(ctx, `SELECT coalesce((SELECT `+total+at+split.when+` AND `+total+` BETWEEN 1 AND ?2
			GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1), 0)`, s.id, split.most, point).Scan(&usual)
		if err != nil {
			return nil, err
		}
		wrong := total + ` <> ?2 AND (` + total + ` <> 0 OR a.token IS NOT NULL)`
		if split.when != "" {
			wrong = `iif(1` + split.when + `, ` + wrong + `, ` + total + ` <> 0)`
		}
		err = each(ctx, tx, `SELECT t.id, min(e.number), `+total+at+` AND `+wrong+` GROUP BY t.id`,
			[]any{s.id, usual, point}, func(rows *sql.Rows) error {
				var trial, number, got int64
				err := rows.Scan(&trial, &number, &got)
				is := fmt.Sprintf("where the study has %d", usual)
				if usual == 0 && split.most > 0 {
					is = fmt.Sprintf("where the study has at most %d", split.most)
				}
				if split.when != "" && !s.At(search.Point(point)).Evaluates(int(number)) {
					is = "where the study evaluates none"
				}
				list = append(list, finding{Finding{fmt.Sprintf("%s epoch %d counts %d %s pictures, %s",
					names[trial], number, got, split.name, is), anew}, 0, trial, number, cut})
				return err
			})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// rateFaults finds epochs whose learning rate is above that of the study at their point, and those with another one than
// most of this point that the same program trained: it depends on the epoch alone. Rates are compared up to rounding.
func (s *storedStudy) rateFaults(ctx context.Context, tx *sql.Tx, names map[int64]string) (list []finding, err error) {
	const digits = 1 - 1e-9
	note := func(trial, number int64, got, want float64, than string) {
		list = append(list, finding{Finding{fmt.Sprintf("%s epoch %d has the learning rate %g, %s %g",
			names[trial], number, got, than, want), anew}, 0, trial, number, cut})
	}
	points, err := s.points(ctx, tx)
	if err != nil {
		return nil, err
	}
	for _, p := range points {
		most := s.At(search.Point(p)).LearningRate
		err = each(ctx, tx, `SELECT t.id, min(e.number), e.learning_rate`+ofStudy+`
			AND NOT e.learning_rate * ?2 BETWEEN 0 AND ?3 AND t.point = ?4 GROUP BY t.id`, []any{s.id, digits, most, p},
			func(rows *sql.Rows) error {
				var trial, number int64
				var got float64
				err := rows.Scan(&trial, &number, &got)
				note(trial, number, got, most, "that of the study is")
				return err
			})
		if err != nil {
			return nil, err
		}
	}
	if len(list) > 0 {
		return list, nil
	}
	type group struct {
		number        int64
		commit, point string
	}
	var groups []group
	err = each(ctx, tx, `SELECT e.number, a.git_commit, t.point`+ofStudy+` AND a.token IS NOT NULL GROUP BY 1, 2, 3
		HAVING min(e.learning_rate) < max(e.learning_rate) * ?2`, []any{s.id, digits}, func(rows *sql.Rows) error {
		var g group
		err := rows.Scan(&g.number, &g.commit, &g.point)
		groups = append(groups, g)
		return err
	})
	if err != nil {
		return nil, err
	}
	seen := []int64{} // the trials that are cut already, at an earlier epoch
	for _, g := range groups {
		const these = ofStudy + ` AND a.token IS NOT NULL AND e.number = ?2 AND a.git_commit = ?3 AND t.point = ?4`
		var usual float64
		if err := tx.QueryRowContext(ctx, `SELECT e.learning_rate`+these+`
			GROUP BY 1 ORDER BY count(*) DESC, 1 DESC LIMIT 1`, s.id, g.number, g.commit, g.point).Scan(&usual); err != nil {
			return nil, err
		}
		err := each(ctx, tx, `SELECT t.id, e.learning_rate`+these+` AND e.learning_rate NOT BETWEEN ?5 AND ?6`,
			[]any{s.id, g.number, g.commit, g.point, usual * digits, usual / digits}, func(rows *sql.Rows) error {
				var trial int64
				var got float64
				err := rows.Scan(&trial, &got)
				if !slices.Contains(seen, trial) {
					note(trial, g.number, got, usual, "that of most trials is")
				}
				seen = append(seen, trial)
				return err
			})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// parseSettings reads the settings of a study as they are stored.
func parseSettings(text []byte) (s search.Study, err error) {
	if err := json.Unmarshal(text, &s); err != nil {
		return s, contradiction("its settings: " + brief(err.Error()))
	}
	return s, nil
}

// soundSettings reads the settings of a study, and refuses those that no study may have, because a file from somebody
// else may have any. It does not choose the networks of a budget again, which can take long.
func soundSettings(text []byte) (s search.Study, err error) {
	if s, err = parseSettings(text); err != nil {
		return s, err
	}
	listed := s
	if len(s.Systems) > 0 {
		listed.StageParams, listed.StageMultiplyAdds, listed.Variant = 0, 0, ""
		listed.Families, listed.PerFamily = nil, 0
		if len(s.Families) > 0 {
			listed.Budget = 0
		}
	}
	if _, err := listed.Normalize(); err != nil {
		return s, contradiction("its settings are wrong: " + brief(err.Error()))
	}
	return s, nil
}
