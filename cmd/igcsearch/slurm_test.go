package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"igcsearch/search"
)

// patience is how long a test waits for what the cluster should do. A busy machine takes many times
// as long as a quiet one.
const patience = 10 * time.Minute

// slurmCluster is a Slurm of two nodes on this machine, which both see dir.
type slurmCluster struct {
	faultRun
	bin string // the program that jobs run
	env []string
}

// TestSlurm trains studies on a real Slurm and disturbs its jobs.
func TestSlurm(t *testing.T) {
	if os.Getenv("IGC_REQUIRE_SLURM") != "1" {
		t.Skip("it starts a Slurm on this machine, as root: IGC_REQUIRE_SLURM=1 does")
	}
	c := newSlurmCluster(t)
	t.Run("parts", func(t *testing.T) { // they run at once, because they wait for leases much of the time
		t.Run("the bits of a local run", func(t *testing.T) { c.of(t).testSameBits() })
		t.Run("every trial is done once", func(t *testing.T) { c.of(t).testFaults() })
		t.Run("the README's commands", func(t *testing.T) { c.of(t).testReadme() })
	})
}

func newSlurmCluster(t *testing.T) slurmCluster {
	c := slurmCluster{faultRun: newFaultRun(t)}
	c.bin = filepath.Join(c.dir, "bin", "igcsearch")
	if out, err := exec.Command("go", "build", "-o", c.bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	slurm := filepath.Join(c.dir, "slurm")
	script := filepath.Join("..", "..", ".ci", "slurm.sh")
	if out, err := exec.Command(script, "start", slurm).CombinedOutput(); err != nil {
		t.Fatalf("no Slurm: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(script, "stop", slurm).CombinedOutput(); err != nil {
			t.Errorf("Slurm does not stop: %v: %s", err, out)
		}
	})
	c.env = append(os.Environ(), "SLURM_CONF="+filepath.Join(slurm, "slurm.conf"),
		"PATH="+filepath.Dir(c.bin)+":"+os.Getenv("PATH"))
	return c
}

// of returns the cluster for a test that runs beside others, with a folder of its
// own. If the test fails, it shows the logs of the jobs.
func (c slurmCluster) of(t *testing.T) slurmCluster {
	t.Parallel()
	c.faultRun = newFaultRun(t)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		logs, _ := filepath.Glob(filepath.Join(c.dir, "*.logs", "*.log"))
		for _, log := range logs {
			text, _ := os.ReadFile(log)
			t.Logf("%s:\n%s", filepath.Base(log), text[max(0, len(text)-4000):])
		}
	})
	return c
}

// try runs a shell command in the test's folder.
func (c slurmCluster) try(command string) (stdout string, err error) {
	cmd := exec.Command("bash", "-c", command)
	cmd.Dir, cmd.Env = c.dir, c.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", command, err, stderr.String())
	}
	return string(out), err
}

func (c slurmCluster) do(command string) string {
	c.t.Helper()
	out, err := c.try(command)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// until waits until wrong returns nil. Otherwise wrong says what is missing.
func (c slurmCluster) until(limit time.Duration, wrong func() error) {
	c.t.Helper()
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = wrong(); err == nil {
			return
		}
	}
	c.t.Fatalf("after %s: %v", limit, err)
}

var submittedRE = regexp.MustCompile(`^(?:coordinator (\d+)\n)?workers (\d+)\n$`)

// submit runs igcsearch submit slurm and returns the numbers of the jobs.
func (c slurmCluster) submit(args string) (coordinator, array string) {
	c.t.Helper()
	out := c.do("igcsearch submit slurm " + args)
	m := submittedRE.FindStringSubmatch(out)
	if m == nil {
		c.t.Fatalf("submit printed %q", out)
	}
	return m[1], m[2]
}

// states returns the state of each task of some jobs, "123_4" or "123", as squeue
// tells it.
func (c slurmCluster) states(jobs ...string) map[string]string {
	states := map[string]string{}
	out, err := c.try("squeue --noheader --array --states=all --format='%i %T' --jobs=" + strings.Join(jobs, ","))
	if err != nil {
		return states // the controller is busy
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 2 {
			states[f[0]] = f[1]
		}
	}
	return states
}

// ended waits until all tasks of the jobs have ended.
func (c slurmCluster) ended(limit time.Duration, jobs ...string) {
	c.t.Helper()
	c.until(limit, func() error {
		states := c.states(jobs...)
		for id, state := range states {
			switch state {
			case "PENDING", "RUNNING", "COMPLETING", "CONFIGURING":
				return fmt.Errorf("job %s is %s", id, state)
			}
		}
		if len(states) == 0 {
			return fmt.Errorf("squeue knows no job of %v", jobs)
		}
		return nil
	})
}

// process returns the worker of an array task, 0 if there is none.
func (c slurmCluster) process(task string) int {
	array, index, _ := strings.Cut(task, "_")
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil || exe != c.bin {
			continue
		}
		env, _ := os.ReadFile(file)
		env = append([]byte{0}, env...)
		has := func(v string) bool { return bytes.Contains(env, []byte("\x00"+v+"\x00")) }
		if has("SLURM_ARRAY_JOB_ID="+array) && has("SLURM_ARRAY_TASK_ID="+index) {
			return pid
		}
	}
	return 0
}

// query reads one text from a database.
func (c slurmCluster) query(db, text string) string {
	c.t.Helper()
	pool, err := sql.Open("sqlite3", "file:"+filepath.Join(c.dir, db)+"?mode=ro")
	if err != nil {
		c.t.Fatal(err)
	}
	defer pool.Close()
	var s string
	if err := pool.QueryRow(text).Scan(&s); err != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	return s
}

// once checks that the trials of a study are done, each once, and that nothing
// that happened to a job counts as a failure of a trial.
func (c slurmCluster) once(study, db string, trials int) (outcomes map[search.Ending]int) {
	c.t.Helper()
	done, outcomes := map[string]int{}, map[search.Ending]int{}
	for _, a := range c.attempts(study, db) {
		outcomes[a.Ending]++
		if a.Ending == "done" {
			done[fmt.Sprint(a.System, a.Seed)]++
		}
	}
	for trial, n := range done {
		if n != 1 {
			c.t.Errorf("%s was done %d times", trial, n)
		}
	}
	if len(done) != trials {
		c.t.Errorf("%d of %d trials done", len(done), trials)
	}
	const counted = `SELECT coalesce(group_concat(kind || ' ' || count), '') FROM failure
		WHERE kind NOT IN ('interrupted', 'lost')`
	if failed := c.query(db, counted); failed != "" {
		c.t.Errorf("failures were counted: %s", failed)
	}
	return outcomes
}

func (c slurmCluster) testSameBits() {
	c.run("--db", "local.db")
	want := c.export("cells", "local.db")
	coordinator, array := c.submit("cells.toml --coordinator --workers 2")
	c.ended(patience, coordinator, array)
	for id, state := range c.states(coordinator, array) {
		if state != "COMPLETED" {
			c.t.Errorf("job %s is %s", id, state)
		}
	}
	if got := c.export("cells", "igcsearch.db"); got != want {
		c.t.Errorf("epochs from Slurm:\n%s\nof a local run:\n%s", got, want)
	}
	c.once("cells", "igcsearch.db", 12)
}

// testFaults disturbs the jobs of one study in every way that Slurm can, and
// then compares the results with those of a local run.
func (c slurmCluster) testFaults() {
	t := c.t
	const settings = " --set name=long --set epochs=250 --set train_pictures=1500"
	d := &disturbed{slurmCluster: c, hit: map[string]bool{}}
	d.coordinator, d.array = c.submit(
		"cells.toml --coordinator --workers 8 --at-most 3 --trials-per-worker 1 --notice 30s" + settings)
	queued := func() bool { return true } // Slurm starts its jobs when it likes
	waitEpochs(t, queued, filepath.Join(c.dir, "igcsearch.db"), "long", 5)
	// This worker joins the coordinator that runs. Its time limit is a minute, so
	// Slurm tells it to end as soon as it looks.
	_, limited := c.submit(
		"cells.toml --access long.access --workers 1 --trials-per-worker 1 --notice 60s" + settings + " -- --time=1")
	d.testStatus()
	killed := d.disturb()

	// Meanwhile the leases of the killed workers end.
	local := c.command(append([]string{"run", "cells.toml", "--no-figure", "--db", "local.db"},
		strings.Fields(settings)...)...)
	var said bytes.Buffer
	local.Stderr = &said
	beside := start(t, local)
	c.ended(patience, d.coordinator, d.array, limited)
	for _, id := range []string{d.coordinator, limited + "_0"} {
		if state := c.states(id)[id]; state != "COMPLETED" {
			t.Errorf("job %s is %s", id, state)
		}
	}
	d.testAttempts(killed)
	if code := beside.wait(); code != 0 {
		t.Fatalf("a local run ends with %d: %s", code, said.String())
	}
	if got, want := c.export("long", "igcsearch.db"), c.export("long", "local.db"); got != want {
		t.Errorf("epochs from Slurm:\n%s\nof a local run:\n%s", got, want)
	}
}

// disturbed is a study whose jobs are disturbed.
type disturbed struct {
	slurmCluster
	coordinator, array string          // the numbers of the jobs
	hit                map[string]bool // tasks that were disturbed
}

// more waits until so many epochs were added: the study goes on whatever happens.
func (d *disturbed) more(n int) {
	d.t.Helper()
	want := len(d.lines("long", "igcsearch.db")) + n
	d.until(patience, func() error {
		if now := len(d.lines("long", "igcsearch.db")); now < want {
			return fmt.Errorf("%d epochs, and not %d", now, want)
		}
		return nil
	})
}

// next returns a task that was not disturbed so far and whose worker trains.
func (d *disturbed) next() (task string) {
	d.t.Helper()
	d.until(patience, func() error {
		for id, state := range d.states(d.array) {
			if state != "RUNNING" || d.hit[id] || d.process(id) == 0 {
				continue
			}
			const trains = `SELECT count(*) FROM attempt WHERE ended IS NULL AND job = 'slurm %s'`
			if d.query("igcsearch.db", fmt.Sprintf(trains, id)) != "0" {
				d.hit[id], task = true, id
				return nil
			}
		}
		return fmt.Errorf("job %s has no worker that trains and was not disturbed: %v", d.array, d.states(d.array))
	})
	return task
}

// becomes waits for a state of a job.
func (d *disturbed) becomes(id, state string) {
	d.t.Helper()
	d.until(patience, func() error {
		if now := d.states(id)[id]; now != state {
			return fmt.Errorf("job %s is %s, want %s", id, now, state)
		}
		return nil
	})
}

// testStatus asks the coordinator who trains what where.
func (d *disturbed) testStatus() {
	host, err := os.Hostname()
	if err != nil {
		d.t.Fatal(err)
	}
	row := regexp.MustCompile(
		`slurm ` + d.array + `_\d+ +` + regexp.QuoteMeta(host) + ` +\d+ +cpu +L\d+M\d+ seed \d`)
	d.until(10*time.Second, func() error {
		if status := d.do("igcsearch status long --db long.access"); !row.MatchString(status) {
			return fmt.Errorf("status does not show the jobs of workers:\n%s", status)
		}
		return nil
	})
}

// disturb returns the tasks that were killed.
func (d *disturbed) disturb() (killed []string) {
	// Two workers are killed. Slurm does not start such a job again.
	task := d.next()
	killed = append(killed, task)
	if err := syscall.Kill(d.process(task), syscall.SIGKILL); err != nil {
		d.t.Error(err)
	}
	d.becomes(task, "FAILED")
	d.more(5)
	task = d.next()
	killed = append(killed, task)
	d.do("scancel --signal=KILL --batch " + task)
	d.becomes(task, "FAILED")
	d.more(5)

	// A job is requeued: it starts again later.
	task = d.next()
	d.do("scontrol requeue " + task)
	d.more(5)

	// A job is cancelled, and another is told to end, as before a time limit.
	task = d.next()
	d.do("scancel " + task)
	d.becomes(task, "CANCELLED")
	d.more(5)
	task = d.next()
	d.do("scancel --signal=USR1 --batch " + task)
	d.becomes(task, "COMPLETED")

	// A node is drained: its jobs go elsewhere.
	task = d.next()
	drained := strings.TrimSpace(d.do("squeue --noheader --format=%N --jobs=" + task))
	d.do("scontrol update NodeName=" + drained + " State=DRAIN Reason=test")
	d.do("scontrol requeue " + task)
	d.more(10)

	// The coordinator is killed and started again. Workers train meanwhile.
	d.do("scancel --signal=KILL --batch " + d.coordinator)
	d.becomes(d.coordinator, "FAILED")
	d.do("scontrol requeue " + d.coordinator)
	d.becomes(d.coordinator, "RUNNING")
	d.more(20)
	d.do("scontrol update NodeName=" + drained + " State=RESUME")
	return killed
}

// testAttempts checks how the attempts ended. Only those of killed workers may be
// lost: a requeue, a drained node, scancel and USR1 are clean.
func (d *disturbed) testAttempts(killed []string) {
	outcomes := d.once("long", "igcsearch.db", 12)
	lost := d.query("igcsearch.db",
		`SELECT coalesce(group_concat(DISTINCT job), '') FROM attempt WHERE outcome = 'lost'`)
	one := `slurm (` + strings.Join(killed, "|") + `)`
	if len(killed) != 2 || !regexp.MustCompile(`^`+one+`(,`+one+`)?$`).MatchString(lost) {
		d.t.Errorf("attempts of %q are lost, want those of the killed %v: %v", lost, killed, outcomes)
	}
	if outcomes["interrupted"] < 3 { // of four, one may have ended at that moment
		d.t.Errorf("%d attempts are interrupted, want those of four jobs that Slurm took: %v",
			outcomes["interrupted"], outcomes)
	}
	n := d.query("igcsearch.db", `SELECT count(DISTINCT job) FROM attempt WHERE job LIKE 'slurm `+d.array+`_%'`)
	if n == "0" || n == "1" {
		d.t.Errorf("attempts are of %s jobs of the array", n)
	}
}

// testReadme runs the commands of the README's section on several machines. It
// waits for the jobs before commands that show results, as a reader does.
func (c slurmCluster) testReadme() {
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		c.t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## More than one machine\n")
	if !ok {
		c.t.Fatal("the README has no section on more than one machine")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	ran := map[string]bool{}
	var jobs []string
	for i, block := range strings.Split(section, "\n```\n") {
		if i%2 == 0 {
			continue // prose
		}
		for line := range strings.Lines(block + "\n") {
			line = strings.TrimSpace(line)
			words := strings.Fields(line)
			if len(words) < 2 || words[0] != "igcsearch" || strings.Contains(line, "kubernetes") {
				continue // an output, or a command for another kind of cluster
			}
			ran[words[1]] = true
			switch words[1] {
			case "submit":
				out := c.do(line)
				m := submittedRE.FindStringSubmatch(out)
				if m == nil {
					c.t.Fatalf("%s printed %q", line, out)
				}
				for _, id := range m[1:] {
					if id != "" {
						jobs = append(jobs, id)
					}
				}
			case "status":
				// It fails until the coordinator's job has started.
				c.until(patience, func() error { _, err := c.try(line); return err })
			default:
				c.ended(patience, jobs...)
				c.do(line)
			}
		}
	}
	for _, command := range []string{"submit", "status", "plot", "collect"} {
		if !ran[command] {
			c.t.Errorf("the README's section shows no igcsearch %s", command)
		}
	}
	for id, state := range c.states(jobs...) {
		if state != "COMPLETED" {
			c.t.Errorf("job %s is %s", id, state)
		}
	}
	if n := strings.Count(c.do("igcsearch export quickstart"), ",done,"); n != 60 {
		c.t.Errorf("%d of 60 trials of the quickstart are done", n)
	}
}
