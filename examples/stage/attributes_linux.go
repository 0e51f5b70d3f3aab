package stage

import "syscall"

// childAttributes makes a child die with the program that started it, however that ends, and keeps it out of the terminal's
// process group, so that Ctrl-C reaches only the parent, which then stops the others in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
