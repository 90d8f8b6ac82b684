/*
 * A dynamic background worker that runs one SQL command, once or with naps in between: what bench:peers measures as "native".
 * The command travels in bgw_extra, which is the cheapest way there is.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(bench_native_launch);
PG_FUNCTION_INFO_V1(bench_native_wait);
PGDLLEXPORT void bench_native_main(Datum naptime);

typedef struct Order
{
	Oid			database;
	Oid			role;
	char		command[BGW_EXTRALEN - 2 * sizeof(Oid)];
} Order;

static BackgroundWorkerHandle *last_launched;

/* The library that a function of ours was loaded from: it need not be in $libdir. */
static void
copy_library_name(Oid function, char *name, size_t size)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		isnull;
	Datum		probin = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_probin, &isnull);

	strlcpy(name, TextDatumGetCString(probin), size);
	ReleaseSysCache(tuple);
}

Datum
bench_native_launch(PG_FUNCTION_ARGS)
{
	BackgroundWorker worker = {0};
	Order	   *order = (Order *) worker.bgw_extra;
	MemoryContext caller;
	bool		registered;

	order->database = MyDatabaseId;
	order->role = GetUserId();
	if (strlcpy(order->command, text_to_cstring(PG_GETARG_TEXT_PP(0)), sizeof(order->command)) >= sizeof(order->command))
		ereport(ERROR, errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION), errmsg("command is too long"));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = Int32GetDatum(PG_GETARG_INT32(1));
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_name, "bench_native", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "bench_native", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "bench_native_main", BGW_MAXLEN);
	copy_library_name(fcinfo->flinfo->fn_oid, worker.bgw_library_name, sizeof(worker.bgw_library_name));

	caller = MemoryContextSwitchTo(TopMemoryContext);
	if (last_launched)
		pfree(last_launched);
	last_launched = NULL;
	registered = RegisterDynamicBackgroundWorker(&worker, &last_launched);
	MemoryContextSwitchTo(caller);
	if (!registered)
		ereport(ERROR, errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				errmsg("no background worker slot is free"), errhint("Raise max_worker_processes."));
	PG_RETURN_VOID();
}

Datum
bench_native_wait(PG_FUNCTION_ARGS)
{
	if (last_launched && WaitForBackgroundWorkerShutdown(last_launched) == BGWH_POSTMASTER_DIED)
		ereport(ERROR, errcode(ERRCODE_ADMIN_SHUTDOWN), errmsg("the postmaster died"));
	PG_RETURN_VOID();
}

/* As src/test/modules/worker_spi does it. */
static void
run(const char *command)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, command);
	SPI_execute(command, false, 0);
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}

void
bench_native_main(Datum main_arg)
{
	int			naptime = DatumGetInt32(main_arg);
	Order		order;

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(order.database, order.role, 0);
	run(order.command);
	while (naptime > 0 && !ShutdownRequestPending)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, naptime, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (!ShutdownRequestPending)
			run(order.command);
	}
}
