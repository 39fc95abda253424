package main

import (
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// child is a process of the program that a test started. It does not outlive the test.
type child struct {
	*exec.Cmd
	ended chan struct{} // closed when the process has ended
}

// start starts a process and kills it at the end of the test, and when the test binary is killed.
func start(t testing.TB, cmd *exec.Cmd) *child {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd, make(chan struct{})}
	go func() {
		cmd.Wait() // ProcessState has all that it says
		close(c.ended)
	}()
	t.Cleanup(func() { c.kill() })
	return c
}

func (c *child) alive() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// wait waits until the process has ended, and returns its exit code: 0 is success, and -1 says that a signal ended it.
func (c *child) wait() int {
	<-c.ended
	return c.ProcessState.ExitCode()
}

// kill kills the process. It reports whether the process had not ended by itself.
func (c *child) kill() bool {
	c.Process.Kill()
	return c.wait() < 0
}

// until waits until something holds that other processes bring about. It fails if they have ended and it does not
// hold. It has no limit of its own, because on a busy machine all of this may take long: the limit of go test ends it
// and names the test.
func until(t interface{ Fatalf(string, ...any) }, what string, alive, holds func() bool) {
	for {
		last := !alive() // what they did before they ended counts
		switch {
		case holds():
			return
		case last:
			t.Fatalf("%s: the process that was to do it has ended", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
