//! What the child says to its parent, and how it waits for an answer: see [`wire`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use super::super::wire::{self, Message, Question};
use super::root::open_slash;
use super::{Context, Outcome, at};
use crate::seccomp::Program;
use crate::sys::{confine, process, socket};

/// Tells why the process cannot go on.
pub(super) fn report(control: BorrowedFd<'_>, index: usize, op: &str, number: i32) {
    let step = u16::try_from(index).unwrap_or(u16::MAX);
    say(control, Message::Failed { step, op, number }).ok();
}

pub(super) fn say(control: BorrowedFd<'_>, message: Message<'_>) -> Outcome<()> {
    let mut buffer = [0; wire::LONGEST];
    process::write_all(control, message.encode(&mut buffer)).map_err(at("write"))
}

/// Says something, with a descriptor beside it.
pub(super) fn hand(
    control: BorrowedFd<'_>,
    message: Message<'_>,
    fd: BorrowedFd<'_>,
) -> Outcome<()> {
    let mut buffer = [0; wire::LONGEST];
    socket::send_fd(control, message.encode(&mut buffer), fd).map_err(at("sendmsg"))
}

/// Has the parent run the hooks of a creation, and tells it where the node's root is in here.
pub(super) fn ask_for_hooks(ctx: &mut Context<'_>) -> Outcome<()> {
    let root = match ctx.node_root.take() {
        Some(root) => root,
        None => open_slash()?,
    };
    // They run in the container's root: the parent finds it where we are.
    process::fchdir(ctx.root()?).map_err(at("fchdir"))?;
    let question = Message::Asks(Question::CreateHooks);
    hand(ctx.control(), question, root.as_fd())?;
    wait_for_answer(ctx.control())
}

/// Asks the parent and waits for its word. If the parent is gone, so are we.
pub(super) fn ask(control: BorrowedFd<'_>, question: Question) -> Outcome<()> {
    say(control, Message::Asks(question))?;
    wait_for_answer(control)
}

pub(super) fn wait_for_answer(control: BorrowedFd<'_>) -> Outcome<()> {
    match process::read(control, &mut [0u8; 1]) {
        Ok(1) => Ok(()),
        _ => process::exit_now(1),
    }
}

/// Loads a filter. If it asks about calls, tells under which number its notifications are, and waits until somebody has them.
pub(super) fn load_filter(control: BorrowedFd<'_>, program: &Program) -> Outcome<()> {
    let fd = confine::seccomp_set_filter(&program.insns, program.flags).map_err(at("seccomp"))?;
    if !program.asks() {
        return Ok(());
    }
    say(control, Message::Listener(fd))?;
    wait_for_answer(control)
}

/// The gate. Without a listener only the parent can open it.
pub(super) fn wait_at_gate(
    ctx: &mut Context<'_>,
    listener: Option<OwnedFd>,
    keep: &[RawFd],
) -> Outcome<()> {
    ctx.let_go(keep);
    // A container that is not started can be asked to end like one that is.
    process::end_when_asked();
    let outcome = wait_for_start(ctx, listener);
    process::reset_signals();
    outcome
}

fn wait_for_start(ctx: &mut Context<'_>, listener: Option<OwnedFd>) -> Outcome<()> {
    let Some(listener) = listener else {
        return ask(ctx.parent, Question::Gate);
    };
    say(ctx.parent, Message::Asks(Question::Gate))?;
    loop {
        let visitor = socket::accept(listener.as_fd()).map_err(at("accept"))?;
        // One that leaves without a word did not come to start us.
        if let Ok(1) = process::read(visitor.as_fd(), &mut [0u8; 1]) {
            ctx.visitor = Some(visitor);
            return Ok(());
        }
    }
}
