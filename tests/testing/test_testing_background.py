"""A nursery beside a block: whose error comes out, and how."""

from __future__ import annotations

from typing import NoReturn

import pytest
import trio

from trio_ws.testing._background import Background


async def fail(error: BaseException) -> NoReturn:
    await trio.lowlevel.cancel_shielded_checkpoint()
    raise error


async def run(*errors: BaseException, block: BaseException | None = None) -> None:
    """Let tasks fail, then the block that they run beside."""
    async with Background() as nursery:
        nursery.start_soon(trio.sleep_forever)
        for error in errors:
            nursery.start_soon(fail, error)
        try:
            if errors:
                await trio.sleep_forever()
        finally:
            if block is not None:
                raise block


async def test_its_tasks_end_with_the_block() -> None:
    await run()


async def test_an_error_of_the_block_is_left_as_it_is() -> None:
    error = ValueError("block")
    error.__cause__ = cause = KeyError("cause")
    with pytest.raises(ValueError, match="block") as caught:
        await run(block=error)
    assert caught.value is error
    assert error.__cause__ is cause
    assert error.__context__ is None


async def test_a_group_of_the_block_is_left_as_it_is() -> None:
    group = ExceptionGroup("mine", [ValueError("one")])
    with pytest.raises(ExceptionGroup) as caught:  # noqa: ASYNC401  # the very same one
        await run(block=group)
    assert caught.value is group
    assert len(group.exceptions) == 1


async def test_an_error_of_a_task_cancels_the_block_and_is_no_group() -> None:
    error = ValueError("task")
    with pytest.raises(ValueError, match="task") as caught:
        await run(error)
    assert caught.value is error
    assert error.__context__ is None


async def test_an_error_that_is_about_to_come_is_waited_for() -> None:
    async def fail_soon() -> None:
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        raise ValueError("task")

    async def run() -> None:
        async with Background() as nursery:
            nursery.start_soon(fail_soon)

    with pytest.raises(ValueError, match="task"):
        await run()


async def test_groups_of_one_around_it_are_taken_off() -> None:
    error = ValueError("task")
    with pytest.raises(ValueError, match="task") as caught:
        await run(ExceptionGroup("outer", [ExceptionGroup("inner", [error])]))
    assert caught.value is error


async def test_the_error_of_a_task_comes_before_that_of_the_block() -> None:
    """The block may have failed for it: its error is the context."""
    first, second = ValueError("task"), KeyError("block")
    with pytest.raises(ValueError, match="task") as caught:
        await run(first, block=second)
    assert caught.value is first
    assert first.__context__ is second


async def test_a_context_that_an_error_has_stays() -> None:
    first, context = ValueError("task"), KeyError("before")
    first.__context__ = context
    with pytest.raises(ValueError, match="task") as caught:
        await run(first, block=OSError("block"))
    assert caught.value.__context__ is context


async def test_several_errors_of_tasks_are_a_group() -> None:
    with pytest.RaisesGroup(ValueError, KeyError):
        await run(ValueError("one"), KeyError("two"))


async def test_a_group_with_a_cancellation_in_it_is_rid_of_that() -> None:
    with pytest.RaisesGroup(ValueError, pytest.RaisesGroup(KeyError)):
        async with Background() as nursery, trio.open_nursery() as inner:
            nursery.start_soon(fail, ValueError("task"))
            inner.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("block")


async def test_a_cancellation_from_outside_passes() -> None:
    with trio.CancelScope() as scope:
        async with Background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_cancellation_from_outside_passes_with_what_came_with_it() -> None:
    with pytest.RaisesGroup(KeyError), trio.CancelScope() as scope:
        async with Background(), trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("block")
