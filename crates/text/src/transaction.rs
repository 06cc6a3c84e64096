//! Work that changes nothing if it fails.

/// Does the work. If it fails, the state that `state_of` points to is as it was before.
pub(crate) fn transaction<O, S: Clone, T, E>(
    owner: &mut O,
    state_of: impl Fn(&mut O) -> &mut S,
    work: impl FnOnce(&mut O) -> Result<T, E>,
) -> Result<T, E> {
    let before = state_of(owner).clone();
    let done = work(owner);
    if done.is_err() {
        *state_of(owner) = before;
    }
    done
}
