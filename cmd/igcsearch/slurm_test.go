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
)

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
	t.Run("parts", func(t *testing.T) { // at once: much of the time is waiting for leases
		t.Run("the bits of a local run", func(t *testing.T) { c.of(t).testSameBits() })
		t.Run("every cell is done once", func(t *testing.T) { c.of(t).testFaults() })
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

// of is the cluster for a test that runs beside others, with a folder of its
// own. If it fails it shows what the jobs say.
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

// until waits for something of which wrong says why it is not yet so.
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

// states are those of all tasks of some jobs, "123_4" or "123", as squeue says.
func (c slurmCluster) states(jobs ...string) map[string]string {
	states := map[string]string{}
	out, err := c.try("squeue --noheader --array --states=all --format='%i %T' --jobs=" + strings.Join(jobs, ","))
	if err != nil {
		return states // a controller that is busy
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 2 {
			states[f[0]] = f[1]
		}
	}
	return states
}

// ended waits until no task of the jobs waits or runs.
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

// process is the worker of an array task, 0 if there is none.
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

// query is one text from a database.
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

// once checks that the cells of a study are done, each once, and that nothing
// that happened to a job counts as a failure of a trial.
func (c slurmCluster) once(study, db string, cells int) (outcomes map[string]int) {
	c.t.Helper()
	done, outcomes := map[string]int{}, map[string]int{}
	for _, a := range c.attempts(study, db) {
		outcomes[a.Outcome]++
		if a.Outcome == "done" {
			done[fmt.Sprint(a.System, a.Seed)]++
		}
	}
	for cell, n := range done {
		if n != 1 {
			c.t.Errorf("%s was done %d times", cell, n)
		}
	}
	if len(done) != cells {
		c.t.Errorf("%d of %d cells done", len(done), cells)
	}
	if failed := c.query(db, `SELECT coalesce(group_concat(kind || ' ' || count), '') FROM failure WHERE kind NOT IN ('interrupted', 'lost')`); failed != "" {
		c.t.Errorf("failures were counted: %s", failed)
	}
	return outcomes
}

func (c slurmCluster) testSameBits() {
	c.run("--db", "local.db")
	want := c.export("cells", "local.db")
	coordinator, array := c.submit("cells.toml --coordinator --workers 2")
	c.ended(2*time.Minute, coordinator, array)
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

func (c slurmCluster) testFaults() {
	t := c.t
	const settings = " --set name=long --set epochs=250 --set train_pictures=1500"
	coordinator, array := c.submit("cells.toml --coordinator --workers 8 --at-most 3 --trials-per-worker 1 --notice 30s" + settings)
	db := filepath.Join(c.dir, "igcsearch.db")

	// more waits until so many epochs were added: whatever happens, it goes on.
	more := func(n int) {
		t.Helper()
		want := len(c.lines("long", "igcsearch.db")) + n
		c.until(2*time.Minute, func() error {
			if now := len(c.lines("long", "igcsearch.db")); now < want {
				return fmt.Errorf("%d epochs, and not %d", now, want)
			}
			return nil
		})
	}
	// next is a task that was left alone so far and whose worker trains.
	hit := map[string]bool{}
	next := func() (task string) {
		t.Helper()
		c.until(time.Minute, func() error {
			for id, state := range c.states(array) {
				if state == "RUNNING" && !hit[id] && c.process(id) > 0 &&
					c.query("igcsearch.db", `SELECT count(*) FROM attempt WHERE ended IS NULL AND job = 'slurm `+id+`'`) != "0" {
					hit[id], task = true, id
					return nil
				}
			}
			return fmt.Errorf("no worker of job %s trains that was left alone: %v", array, c.states(array))
		})
		return task
	}
	becomes := func(id, state string) {
		t.Helper()
		c.until(time.Minute, func() error {
			if now := c.states(id)[id]; now != state {
				return fmt.Errorf("job %s is %s, want %s", id, now, state)
			}
			return nil
		})
	}

	waitEpochs(t, db, "long", 5)
	// A worker that joins the coordinator that runs, and whose time limit is
	// a minute: Slurm tells it at once, that is when it looks next.
	_, limited := c.submit("cells.toml --access long.access --workers 1 --trials-per-worker 1 --notice 60s" + settings + " -- --time=1")

	// Who trains what where, from the coordinator.
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`slurm ` + array + `_\d+ +` + regexp.QuoteMeta(host) + ` +\d+ +cpu +L\d+M\d+ seed \d`)
	c.until(10*time.Second, func() error {
		if status := c.do("igcsearch status long --db long.access"); !row.MatchString(status) {
			return fmt.Errorf("status does not show the jobs of workers:\n%s", status)
		}
		return nil
	})

	// Killed, twice. Slurm does not start such a job again.
	var killed []string
	task := next()
	killed = append(killed, task)
	if err := syscall.Kill(c.process(task), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	becomes(task, "FAILED")
	more(5)
	task = next()
	killed = append(killed, task)
	c.do("scancel --signal=KILL --batch " + task)
	becomes(task, "FAILED")
	more(5)

	// Requeued: the same job starts again, later.
	task = next()
	c.do("scontrol requeue " + task)
	more(5)

	// Cancelled, and told as before a time limit.
	task = next()
	c.do("scancel " + task)
	becomes(task, "CANCELLED")
	more(5)
	task = next()
	c.do("scancel --signal=USR1 --batch " + task)
	becomes(task, "COMPLETED")

	// A node is drained: its jobs go elsewhere.
	task = next()
	drained := strings.TrimSpace(c.do("squeue --noheader --format=%N --jobs=" + task))
	c.do("scontrol update NodeName=" + drained + " State=DRAIN Reason=test")
	c.do("scontrol requeue " + task)
	more(10)

	// The coordinator is killed and started again: workers train meanwhile.
	c.do("scancel --signal=KILL --batch " + coordinator)
	becomes(coordinator, "FAILED")
	c.do("scontrol requeue " + coordinator)
	becomes(coordinator, "RUNNING")
	more(20)
	c.do("scontrol update NodeName=" + drained + " State=RESUME")

	// While the leases of those that were killed run out.
	local := c.command(append([]string{"run", "cells.toml", "--no-figure", "--db", "local.db"}, strings.Fields(settings)...)...)
	var said bytes.Buffer
	local.Stderr = &said
	if err := local.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { local.Process.Kill() }()
	c.ended(3*time.Minute, coordinator, array, limited)
	for _, id := range []string{coordinator, limited + "_0"} {
		if state := c.states(id)[id]; state != "COMPLETED" {
			t.Errorf("job %s is %s", id, state)
		}
	}
	outcomes := c.once("long", "igcsearch.db", 12)
	// A requeue, a drained node, scancel and USR1 are clean.
	if lost := c.query("igcsearch.db", `SELECT coalesce(group_concat(DISTINCT job), '') FROM attempt WHERE outcome = 'lost'`); len(killed) != 2 ||
		!regexp.MustCompile(`^slurm (`+strings.Join(killed, "|")+`)(,slurm (`+strings.Join(killed, "|")+`))?$`).MatchString(lost) {
		t.Errorf("attempts of %q are lost, want those of the killed %v: %v", lost, killed, outcomes)
	}
	if outcomes["interrupted"] < 3 { // of four, one may have ended in that moment
		t.Errorf("%d attempts are interrupted, want those of four jobs that Slurm took: %v", outcomes["interrupted"], outcomes)
	}
	if n := c.query("igcsearch.db", `SELECT count(DISTINCT job) FROM attempt WHERE job LIKE 'slurm `+array+`_%'`); n == "0" || n == "1" {
		t.Errorf("attempts are of %s jobs of the array", n)
	}
	if err := local.Wait(); err != nil {
		t.Fatalf("a local run: %v: %s", err, said.String())
	}
	if got, want := c.export("long", "igcsearch.db"), c.export("long", "local.db"); got != want {
		t.Errorf("epochs from Slurm:\n%s\nof a local run:\n%s", got, want)
	}
}

// testReadme follows the README's section on several machines word for word.
// Commands that show results wait for the jobs, as a reader does.
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
				continue // an output, or what needs a cluster of another kind
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
				// Until the coordinator's job has started there is none to ask.
				c.until(time.Minute, func() error { _, err := c.try(line); return err })
			default:
				c.ended(3*time.Minute, jobs...)
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
